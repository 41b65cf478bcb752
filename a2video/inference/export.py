"""A trained network for another runtime: written, described, and compared with torch before anyone sees it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from a2video.errors import InputError
from a2video.inference import converters
from a2video.inference.backends import TorchBackend
from a2video.inference.comparison import Comparison, Videos, compare, videos_of
from a2video.inference.description import FILES, PRECISIONS, Description, beside
from a2video.inference.loading import load
from a2video.inference.weights import Trained, load_trained

SUFFIXES = {"torch": ".safetensors", "onnx": ".onnx", "openvino": ".xml"}
MAX_DIFFERENCE = 1e-4  # of probabilities, in float32

Sources = Sequence[str | Path]


def export(
    checkpoint: str | Path,
    target: str,
    out: str | Path,
    precision: str = "float32",
    check: Sources = (),
    calibrate: Sources = (),
    overwrite: bool = False,
) -> tuple[Comparison, list[Path]]:
    """Writes a trained network for another runtime, with a description beside it.

    What is written is read again as its users will read it, and compared with torch.

    Args:
        checkpoint: a file that `a2video fit` or `export` to torch wrote.
        target: "torch" (.safetensors), "onnx" (.onnx) or "openvino" (.xml and .bin).
        out: the file, with that suffix; the description has its name and .json.
        precision: "float32"; "bfloat16" or "int8" for OpenVINO only.
        check: a list or folder of videos, or videos, to compare on; random clips when empty.
        calibrate: likewise, what int8 is calibrated on.
        overwrite: replace files that exist.

    Returns:
        The comparison, and the files.

    Raises:
        InputError: the input is wrong, a package is missing, or the network's results are not torch's. Nothing is
            written then.
    """
    out = Path(out)
    _check_options(target, out, precision, calibrate, overwrite)
    trained = load_trained(checkpoint)
    videos = videos_of(check, trained.class_names)
    with _into(out) as made:
        _write(trained, made, precision, videos_of(calibrate, trained.class_names))
        suffixes = FILES[out.suffix]
        sums = {suffix: hashlib.sha256(made.with_suffix(suffix).read_bytes()).hexdigest() for suffix in suffixes}
        network = getattr(trained.network, "description", None)
        description = Description(network, trained.class_names, trained.preprocessing, precision, sums)
        beside(made).write_text(description.to_json(), encoding="utf-8")
        comparison = _compare(trained, made, videos)
        _refuse_other_results(out, precision, comparison)
        description = dataclasses.replace(description, check=comparison.to_dict())
        beside(made).write_text(description.to_json(), encoding="utf-8")
    return comparison, files_of(out)


def files_of(out: Path) -> list[Path]:
    """What a network consists of, the description last."""
    return [*(out.with_suffix(suffix) for suffix in FILES[out.suffix]), beside(out)]


def _check_options(target: str, out: Path, precision: str, calibrate: Sources, overwrite: bool) -> None:
    if target not in SUFFIXES:
        raise InputError(f"--to {target}: expected one of {', '.join(SUFFIXES)}")
    if out.suffix != SUFFIXES[target]:
        raise InputError(f"--out {out}: a network for {target} is a file that ends in {SUFFIXES[target]}")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    if precision != "float32" and target != "openvino":
        why = (
            "weights are kept as they were trained"
            if target == "torch"
            else "ONNX Runtime has no quick 3D convolutions in it"
        )
        raise InputError(f"--precision {precision} is for --to openvino only: with --to {target}, {why}")
    if (precision == "int8") != bool(calibrate):
        found = "needs" if precision == "int8" else "is the only one that takes"
        raise InputError(f"--precision int8 {found} --calibrate LIST, videos like those it will see")
    for file in files_of(out):
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists: choose another --out, or replace it by --overwrite")


def _write(trained: Trained, made: Path, precision: str, calibration: Videos) -> None:
    """Writes the files of a network, all but its description."""
    if made.suffix == ".safetensors":
        return converters.write_safetensors(trained, made)
    if made.suffix == ".onnx":
        return converters.write_onnx(trained, made)
    onnx_file = made.with_suffix(".onnx")
    converters.write_onnx(trained, onnx_file)
    if precision == "int8":
        return converters.write_int8(onnx_file, made, _calibration_clips(trained, calibration))
    return converters.write_openvino(onnx_file, made, precision == "bfloat16")


def _calibration_clips(trained: Trained, videos: Videos) -> Iterator[Tensor]:
    """The centre view of videos spread over the list, each (1, 3, T, H, W)."""
    step = -(-len(videos.paths) // converters.MAX_CALIBRATION)
    some = Videos(videos.source, videos.paths[::step], videos.labels[::step])
    for clips, _ in some.clips(trained.preprocessing.one_view, "reading videos to calibrate on"):
        yield clips


def _compare(trained: Trained, made: Path, videos: Videos) -> Comparison:
    exported = load(made, "cpu", emulate=True)
    reference = TorchBackend(trained.network, trained.preprocessing, "cpu")
    return compare(reference, exported.backend, videos, trained.preprocessing)


def _refuse_other_results(out: Path, precision: str, comparison: Comparison) -> None:
    """Raises InputError where a network is of no use."""
    gap, equal = comparison.largest_difference, comparison.equal_top1
    if gap != gap:
        raise InputError(f"{out} was not written: the network's results, or the exported one's, are no numbers (NaN)")
    if precision == "float32" and (gap > MAX_DIFFERENCE or equal < 1):
        raise InputError(
            f"{out} was not written: its probabilities differ from torch's by up to {gap:.1e}, and its top-1 is the "
            f"same for {equal:.2%} of the videos, where {MAX_DIFFERENCE:.0e} and all are expected"
        )


@contextmanager
def _into(out: Path) -> Iterator[Path]:
    """Gives a path of the same name in a folder beside `out`, and moves its files when all went well."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            yield Path(folder) / out.name
            for file in files_of(out):
                part = Path(folder) / file.name
                with part.open("rb") as content:
                    os.fsync(content.fileno())
                part.replace(file)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}): make room for it") from error
