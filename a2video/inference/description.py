"""What lies beside an exported network: a JSON file from which it can be used, with a2video and without."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from a2video.data.transforms import Preprocessing
from a2video.errors import InputError

FORMAT = "a2video network 1"
FILES = {  # what an exported network consists of, beside its description, by the suffix of its name
    ".safetensors": (".safetensors",),
    ".onnx": (".onnx",),
    ".xml": (".xml", ".bin"),
}
PRECISIONS = ("float32", "bfloat16", "int8")
INPUT, OUTPUT = "clips", "logits"
MAX_CLASSES = 100_000  # a classifier for so many takes 800 MB
MAX_JSON_BYTES = 64 << 20  # of a description


@dataclass(frozen=True)
class Description:
    """Everything about an exported network that its weights do not say.

    Attributes:
        network: the builder and its arguments; None for a network that a2video did not build.
        class_names: in the order of the logits.
        preprocessing: from video to clips, and which views to average.
        precision: one of PRECISIONS.
        sha256: of each file, by its suffix.
        check: what a comparison with torch gave; for people.
    """

    network: Mapping[str, Any] | None
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    sha256: Mapping[str, str]
    check: Mapping[str, Any] = field(default_factory=dict)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(3, T, H, W)."""
        side = self.preprocessing.crop_size
        return 3, self.preprocessing.num_frames, side, side

    @property
    def about(self) -> dict[str, Any]:
        """The same as a checkpoint has it."""
        return {
            "network": self.network,
            "class_names": self.class_names,
            "preprocessing": self.preprocessing.to_dict(),
        }

    def to_json(self) -> str:
        """With explanations for people who use the network without a2video."""
        is_raw = ".safetensors" not in self.sha256
        clips = {"name": INPUT, "shape": ["N", *self.clip_shape], "layout": "clip, colour (RGB), frame, row, column"}
        values = "0 to 255, not normalised" if is_raw else "normalised as `preprocessing_in_words` says"
        content = {
            "format": FORMAT,
            "a2video": version("a2video"),
            "network": self.network,
            "precision": self.precision,
            "input": clips | {"dtype": "uint8" if is_raw else "float32", "values": values},
            "output": {
                "name": OUTPUT,
                "shape": ["N", len(self.class_names)],
                "dtype": "float32",
                "values": "logits, in the order of `class_names`: their softmax is the probabilities",
            },
            "preprocessing": self.preprocessing.to_dict(),
            "preprocessing_in_words": in_words(self.preprocessing, is_raw),
            "check": self.check,
            "sha256": self.sha256,
            "class_names": self.class_names,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, path: Path, suffixes: tuple[str, ...]) -> Description:
        """Reads what to_json wrote; trusts nothing in it.

        Args:
            path: the JSON file.
            suffixes: of the network's files.

        Raises:
            InputError: there is no such file, or something in it is missing, of another kind or out of range.
        """
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ValueError(f"it has more than {MAX_JSON_BYTES >> 20} MiB")
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path} does not exist: a2video export writes it, keep it beside the network") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}): export again") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is no description of a network of `a2video export` ({FORMAT}): export again")
        try:
            return _checked(content, suffixes)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} does not describe a network ({' '.join(str(error).split())})") from error


def beside(path: Path) -> Path:
    """Where the description of a network lies: model.onnx.json for model.onnx."""
    return path.with_name(path.name + ".json")


def read_exported(path: str | Path) -> tuple[Description, dict[str, bytes]]:
    """An exported network: its description, and the content of its files by their suffixes.

    Raises:
        InputError: a file is missing, or is not the one that the description was written for.
    """
    path = Path(path)
    suffixes = FILES[path.suffix]
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a network that `a2video export` wrote")
    description = Description.from_json(beside(path), suffixes)
    contents = {}
    for suffix in suffixes:
        file = path.with_suffix(suffix)
        try:
            contents[suffix] = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}): it is part of the network") from error
        if hashlib.sha256(contents[suffix]).hexdigest() != description.sha256[suffix]:
            raise InputError(
                f"{file} is damaged, or not the file that {beside(path).name} describes (its sha256 "
                "differs): export again"
            )
    return description, contents


def _checked(content: dict[str, Any], suffixes: tuple[str, ...]) -> Description:
    """Raises ValueError, TypeError or KeyError for a field that is not as it should be."""
    names, sums, network, check = (content[name] for name in ("class_names", "sha256", "network", "check"))
    if not isinstance(sums, dict) or set(sums) != set(suffixes):
        raise ValueError(f"sha256 must have the checksums of {' and '.join(suffixes)}")
    if not (network is None or isinstance(network, dict)) or not isinstance(check, dict):
        raise ValueError("network and check must be objects")
    if content["precision"] not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
    if not isinstance(content["preprocessing"], dict):
        raise ValueError("preprocessing must be an object")
    preprocessing = Preprocessing.from_dict(content["preprocessing"])
    return Description(network, checked_names(names), preprocessing, content["precision"], sums, check)


def checked_names(names: Any) -> tuple[str, ...]:
    """The class names of a file.

    Raises:
        ValueError: they are none, or one is there twice.
    """
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names must be a list of names")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"class_names has {len(names)} names, and the most is {MAX_CLASSES}")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"class_names has {twice[:80]!r} twice")
    return tuple(names)


def in_words(preprocessing: Preprocessing, is_raw: bool) -> list[str]:
    """Each step from a video to the network and back, for people who write it anew.

    Args:
        preprocessing: the steps.
        is_raw: whether the network normalises by itself.
    """
    p = preprocessing
    fps = f"of the video seen at {p.target_fps} frames a second" if p.target_fps else "of the video as it is"
    short = {
        "loop": "begins again from its first frame",
        "repeat_last": "goes on with its last frame",
        "error": "is refused",
    }[p.short]
    crops = "the centre one" if p.num_crops == 1 else "spread evenly along the longer side, first, centre and last"
    mean, std = ([round(value * 255, 4) for value in values] for values in (p.mean, p.std))
    where = "inside the network, do not repeat it" if is_raw else "before the network"
    return [
        "frames: decoded to 8-bit RGB in the order of display, turned upright as the file's rotation says",
        f"clips: {p.num_clips}, spread evenly over the video, of {p.num_frames} frames each, {p.frame_stride} source "
        f"frames apart (0: one frame repeated), {fps}",
        f"short videos: one that ends before a clip does {short}",
        f"resize: shorter side to {p.short_side} pixels, aspect kept (longer side rounded to the nearest pixel), "
        "bilinear with antialiasing (torch.nn.functional.interpolate, antialias=True), 8 bits per colour in and out",
        f"crop: {p.num_crops} of {p.crop_size} x {p.crop_size} pixels from each clip, {crops}, none mirrored",
        "layout: (clip, colour, frame, row, column), colours in the order red, green, blue",
        f"normalisation: (value - {mean}) / {std} for red, green and blue; {where}",
        "result: the softmax of each crop's logits, averaged over all crops and clips of the video",
    ]
