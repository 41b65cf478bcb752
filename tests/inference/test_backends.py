"""Which runtime computes a file, and files that are damaged, exchanged or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exported import CLIPS, FILES, save_checkpoint

from a2video import VideoClassifier
from a2video.errors import InputError
from a2video.inference.description import beside
from a2video.inference.export import export
from a2video.models import a2net_tiny


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """Networks to do harm to."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def refused(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        VideoClassifier.load(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def describe(path: Path, **changes: object) -> None:
    """Changes the description."""
    file = beside(path)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def sign(path: Path) -> None:
    """Puts the checksums of the files as they are now into the description."""
    import hashlib

    sums = {
        file.suffix: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.parent.iterdir()
        if file.suffix != ".json"
    }
    describe(path, sha256=sums)


def test_choices_that_do_not_fit(copy: Path, tiny_checkpoint: Path) -> None:
    onnx, xml = copy / "onnx/net.onnx", copy / "openvino/net.xml"
    assert "choose torch" in refused(tiny_checkpoint, backend="openvino")
    assert "choose openvino" in refused(xml, backend="onnxruntime")
    assert "choose onnxruntime or openvino" in refused(onnx, backend="torch")
    assert "is none of auto, torch, onnxruntime, openvino" in refused(onnx, backend="tensorrt")
    assert "choose auto or cpu" in refused(xml, device="cuda")
    assert "choose auto or cpu" in refused(onnx, device="cuda:7")
    assert "leave `network` out" in refused(onnx, network=a2net_tiny(2))
    assert "num_threads must be at least 1" in refused(xml, num_threads=0)
    with pytest.raises(AttributeError, match="has no torch network"):
        _ = VideoClassifier.load(xml).network


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("onnx", "onnx", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_package(
    exported: Path, target: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    assert f'pip install "a2video[{extra}]"' in refused(exported / target / FILES[target])


def test_openvino_leaves_signals_alone(exported: Path) -> None:
    """A signal after a classifier has ended in another thread was a segmentation fault."""
    code = f"""
import signal, threading
from a2video import VideoClassifier
box = [VideoClassifier.load({str(exported / "openvino/net.xml")!r})]
thread = threading.Thread(target=box.clear)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "handled\n"


def test_a_package_missing_for_export(
    tiny_checkpoint: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'pip install "a2video\[onnx\]"'):
        export(tiny_checkpoint, "onnx", tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_threads_are_torchs_only_while_it_computes(tiny_checkpoint: Path) -> None:
    before = torch.get_num_threads()
    classifier = VideoClassifier.load(tiny_checkpoint, "cpu", num_threads=before + 1)
    classifier.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    seen: list[int] = []
    classifier.backend(torch.zeros(1, 3, 4, 24, 24, dtype=torch.uint8))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


@pytest.mark.parametrize("target", FILES)
def test_files_that_are_damaged_or_exchanged(copy: Path, target: str) -> None:
    path = copy / target / FILES[target]
    description = beside(path)
    good = description.read_text(encoding="utf-8")
    for suffix in json.loads(good)["sha256"]:
        file = path.with_suffix(suffix)
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "sha256 differs" in refused(path)
        file.write_bytes(content[: len(content) // 2])
        sign(path)  # an honest description of a damaged file
        refused(path)
        file.unlink()
        refused(path)
        file.write_bytes(content)
        description.write_text(good, encoding="utf-8")
    VideoClassifier.load(path, "cpu")
    description.unlink()
    assert "keep it beside the network" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"class_names": ["one"]},
        {"class_names": "left"},
        {"class_names": [1, 2]},
        {"sha256": {}},
        {"sha256": {".xml": 1, ".bin": None}},
        {"precision": "int3"},
        {"network": []},
        {"preprocessing": CLIPS.to_dict() | {"num_frames": 8}},
        {"preprocessing": CLIPS.to_dict() | {"mean": ["a", "b", "c"]}},
        {"preprocessing": CLIPS.to_dict() | {"std": []}},
        {"preprocessing": {"num_frames": 4, "shell": "rm"}},
        {"preprocessing": None},
    ],
)
def test_descriptions_are_not_trusted(copy: Path, change: dict[str, object]) -> None:
    path = copy / "openvino/net.xml"
    describe(path, **change)
    refused(path)


def test_descriptions_that_are_none(copy: Path) -> None:
    path = copy / "onnx/net.onnx"
    for content in (b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"):
        beside(path).write_bytes(content)
        refused(path)
    beside(path).write_bytes((copy / "openvino/net.xml.json").read_bytes())
    assert "sha256 must have the checksums of .onnx" in refused(path)


class Payload:
    """Creates a file where a pickle is executed."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.file),)


def test_pickles_are_not_executed(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, weights = tmp_path / "executed", copy / "torch/net.safetensors"
    weights.write_bytes(pickle.dumps(Payload(mark)))
    sign(weights)
    assert "holds no safetensors" in refused(weights)
    weights.unlink()
    torch.save({"a2video": {}, "state_dict": {"network.x": Payload(mark)}}, tmp_path / "evil.ckpt")
    assert "holds no plain data" in refused(tmp_path / "evil.ckpt")
    shutil.copy(tmp_path / "evil.ckpt", weights)
    sign(weights)
    refused(weights)
    assert not mark.exists()
    with pytest.raises(pickle.UnpicklingError):  # the payload itself is in order, elsewhere it does its work
        torch.load(tmp_path / "evil.ckpt", weights_only=True)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)  # which a fit in this process has set
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_elsewhere_are_not_opened(copy: Path, backend: str) -> None:
    import onnx

    path = copy / "onnx/net.onnx"
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../etc/passwd")
    path.write_bytes(model.SerializeToString())
    sign(path)
    assert "names other files with its weights, which are not opened" in refused(path, backend=backend)


def test_weights_of_another_network(copy: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other.ckpt", a2net_tiny(2, places=["conv3.1"]), CLIPS)
    export(other, "torch", tmp_path / "other.safetensors")
    shutil.copy(tmp_path / "other.safetensors", copy / "torch/net.safetensors")
    sign(copy / "torch/net.safetensors")
    assert "does not fit this version of a2video" in refused(copy / "torch/net.safetensors")
