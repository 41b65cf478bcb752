"""What strangers can give us: nothing in it is executed, imported or removed, and it has no more than its own size."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import CLIPS, NAMES
from PIL import Image
from test_cli import fails

from a2video.checkpoint_files import AtomicCheckpointIO
from a2video.cli import main
from a2video.data.readers import ImageReader, VideoError
from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference.classifier import VideoClassifier
from a2video.inference.description import beside
from a2video.inference.weights import load_trained
from a2video.models import a2net_tiny

Writer = Callable[[Path], Path]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which `import stranger` works, and leaves a trace of it."""
    (tmp_path / "stranger.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
        "import torch\nclass Network(torch.nn.Linear):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def content_of(**about: Any) -> dict[str, Any]:
    network = a2net_tiny(2)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    ours = {"network": network.description, "class_names": NAMES, "preprocessing": CLIPS.to_dict()} | about
    return {"a2video": ours, "state_dict": state}


class TestCheckpoints:
    def test_code_in_a_checkpoint_is_not_run(
        self, tmp_path: Path, write_config: Writer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for place in ("a2video", "state_dict", "hyper_parameters", "callbacks", "optimizer_states"):
            content = content_of()
            content[place] = {**content.get(place, {}), "more": Bomb(tmp_path / "made")}
            torch.save(content, tmp_path / "bad.ckpt")
            with pytest.raises(InputError, match=r"bad\.ckpt holds no plain data and tensors"):
                load_trained(tmp_path / "bad.ckpt")
        for command in ("fit", "test"):
            message = fails(capsys, command, "--config", write_config(tmp_path), f"--ckpt_path={tmp_path / 'bad.ckpt'}")
            assert "bad.ckpt holds no plain data and tensors" in message
        message = fails(
            capsys, "fit", "--config", write_config(tmp_path), f"--model.pretrained={tmp_path / 'bad.ckpt'}"
        )
        assert "bad.ckpt holds no plain data and tensors" in message
        assert not (tmp_path / "made").exists()

    def test_an_old_pickle_is_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "made")))
        with pytest.raises(InputError, match=r"bad\.ckpt holds no plain data"):
            load_trained(tmp_path / "bad.ckpt")
        assert not (tmp_path / "made").exists()

    @pytest.mark.filterwarnings("ignore:The dirpath has changed")
    def test_a_checkpoint_cannot_choose_classes(
        self, stranger: Path, trained: Path, write_config: Writer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Lightning's command line takes `hyper_parameters` for options, and imports and makes what they name."""
        content = torch.load(trained / "last.ckpt", weights_only=True)
        network = {"class_path": "stranger.Network", "init_args": {"in_features": 1, "out_features": 2}}
        content["hyper_parameters"] = {"network": network, "max_bad_losses": 7}
        torch.save(content, stranger / "bad.ckpt")
        checkpoint = f"--ckpt_path={stranger / 'bad.ckpt'}"
        main(["test", "--config", str(write_config(stranger)), checkpoint])
        main(["fit", "--config", str(write_config(stranger)), checkpoint, "--overwrite=true"])
        settings = next((stranger / "out").rglob("config.yaml")).read_text()
        assert "max_bad_losses: 0" in settings
        assert "stranger" not in settings.replace(str(stranger), "")
        content["a2video"]["network"] = {"builder": "stranger.Network", "arguments": {}}
        torch.save(content, stranger / "bad.ckpt")
        with pytest.raises(InputError, match=r"unknown model builder 'stranger\.Network'"):
            load_trained(stranger / "bad.ckpt")
        assert not (stranger / "imported").exists()
        assert "stranger" not in sys.modules

    @pytest.mark.filterwarnings("ignore:The dirpath has changed")
    def test_a_checkpoint_cannot_have_folders_removed(
        self, trained: Path, write_config: Writer, tmp_path: Path
    ) -> None:
        """Lightning removes the file that a better one replaces, folders too, by the name in the checkpoint."""
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "precious.ckpt").touch()
        content = torch.load(trained / "last.ckpt", weights_only=True)
        for name in [name for name in content["callbacks"] if name.startswith("ModelCheckpoint")]:
            state = content["callbacks"].pop(name) | {"best_model_path": f"local://{victim}"}
            content["callbacks"][name.replace("'val/top1'", "None")] = state
        torch.save(content, tmp_path / "bad.ckpt")
        options = ["--data.val_list=null", "--trainer.max_epochs=3", "--trainer.limit_train_batches=2"]
        main(["fit", "--config", str(write_config(tmp_path)), f"--ckpt_path={tmp_path / 'bad.ckpt'}", *options])
        assert (victim / "precious.ckpt").exists()

    def test_what_is_removed(self, tmp_path: Path) -> None:
        for name in ("a.ckpt", "b.ckpt", "text.txt"):
            (tmp_path / name).touch()
        (tmp_path / "folder").mkdir()
        files = AtomicCheckpointIO()
        for name in ("a.ckpt", "none.ckpt", "text.txt", "folder", "folder/../b.ckpt"):
            files.remove_checkpoint(tmp_path / name)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b.ckpt", "folder", "text.txt"]

    def test_compressed_archives_are_not_unpacked(self, tmp_path: Path) -> None:
        torch.save(content_of(), tmp_path / "good.ckpt")
        with zipfile.ZipFile(tmp_path / "good.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
            for entry in good.infolist():
                bad.writestr(entry.filename, good.read(entry), zipfile.ZIP_DEFLATED)
        with pytest.raises(InputError, match=r"bad\.ckpt was not written by torch.save, for it is compressed"):
            load_trained(tmp_path / "bad.ckpt")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"network": {"builder": "a2net_tiny", "arguments": {"num_classes": 10**9}}},
                "2 class names, but num_classes",
            ),
            ({"network": {"builder": "a2net_tiny", "arguments": {"num_classes": 2**62}}}, "does not fit"),
            ({"network": {"builder": "resnet101", "arguments": {"num_classes": 2}}}, "Missing key"),
            ({"network": {"builder": "a2net_tiny", "arguments": {"num_classes": True}}}, "takes numbers and lists"),
            ({"network": {"builder": "a2net_tiny", "arguments": {"num_classes": 2, "ratio": 10**6}}}, "ratio 1000000"),
            ({"network": {"builder": ["a2net_tiny"], "arguments": {}}}, "unknown model builder"),
            ({"network": {"builder": "a2net_tiny", "arguments": {"num_classes": 2, "places": ["x" * 10**6]}}}, "block"),
            ({"network": "a2net_tiny"}, "does not fit"),
            ({"class_names": ["left", "left"]}, "'left' twice"),
            ({"class_names": [str(n) for n in range(100_001)]}, "the most is 100000"),
            ({"class_names": "ab"}, "list of names"),
            ({"class_names": [1, 2]}, "list of names"),
            ({"preprocessing": [1]}, "not preprocessing settings"),
        ],
    )
    def test_descriptions_that_nobody_wrote(self, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
        torch.save(content_of(**changes), tmp_path / "bad.ckpt")
        with pytest.raises(InputError, match=r"bad\.ckpt") as caught:
            load_trained(tmp_path / "bad.ckpt")
        assert message in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "values",
    [
        {"num_clips": 10_000_000},
        {"num_frames": 10**30},
        {"num_frames": True},
        {"num_crops": True},
        {"short_side": 100_000, "crop_size": 90_000},
        {"num_clips": 10_000, "num_frames": 4096},
        {"frame_stride": 10**9},
        {"target_fps": 1e300},
        {"target_fps": True},
        {"target_fps": "30"},
        {"mean": [0, 0, 10**400]},
        {"mean": [0, 0, float("nan")]},
        {"mean": 0.5},
        {"std": []},
        {"std": [1, 1, "1"]},
        {"short": ["loop"]},
        {"short": "x" * 10**6},
        {5: 5},
    ],
)
def test_preprocessing_that_nobody_wrote(values: dict[Any, Any]) -> None:
    with pytest.raises(InputError, match="preprocessing") as caught:
        Preprocessing.from_dict(CLIPS.to_dict() | values)
    assert len(str(caught.value)) < 300


class TestExportedNetworks:
    def test_weights_that_are_a_pickle(self, exported: Path, tmp_path: Path) -> None:
        path = copy(exported / "torch/net.safetensors", tmp_path)
        rewrite(path, ".safetensors", pickle.dumps(Bomb(tmp_path / "made")))
        with pytest.raises(InputError, match="holds no safetensors"):
            load_trained(path)
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
    def test_onnx_with_weights_in_other_files(self, backend: str, exported: Path, tmp_path: Path) -> None:
        path = copy(exported / "onnx/net.onnx", tmp_path)
        rewrite(path, ".onnx", with_outside_weights(path, "../../../../etc/passwd"))
        with pytest.raises(InputError, match="names other files with its weights"):
            VideoClassifier.load(path, backend=backend)

    def test_another_format_in_an_xml_file(self, exported: Path, tmp_path: Path) -> None:
        """OpenVINO tells formats by their content, and would read an ONNX network there, with weights from anywhere."""
        path = copy(exported / "openvino/net.xml", tmp_path)
        rewrite(path, ".xml", with_outside_weights(exported / "onnx/net.onnx", "/etc/passwd"))
        with pytest.raises(InputError, match="is no XML file of OpenVINO"):
            VideoClassifier.load(path)

    def test_external_entities_and_offsets_outside(self, exported: Path, tmp_path: Path) -> None:
        path = copy(exported / "openvino/net.xml", tmp_path)
        text = path.read_text()
        (tmp_path / "secret").write_text("opset1")
        entity = f'<?xml version="1.0"?>\n<!DOCTYPE net [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>\n'
        rewrite(path, ".xml", (entity + text.partition("?>")[2].replace('"opset1"', '"&x;"')).encode())
        with pytest.raises(InputError, match="cannot be loaded by OpenVINO"):
            VideoClassifier.load(path)
        rewrite(path, ".xml", text.replace('offset="0"', 'offset="999999999999"').encode())
        with pytest.raises(InputError, match="cannot be loaded by OpenVINO"):
            VideoClassifier.load(path)


def copy(path: Path, folder: Path) -> Path:
    for file in path.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def rewrite(path: Path, suffix: str, content: bytes) -> None:
    """Replaces a file and its checksum: who makes a network makes its description too."""
    path.with_suffix(suffix).write_bytes(content)
    description = json.loads(beside(path).read_text())
    description["sha256"][suffix] = hashlib.sha256(content).hexdigest()
    beside(path).write_text(json.dumps(description))


def with_outside_weights(path: Path, location: str) -> bytes:
    import onnx

    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    content: bytes = model.SerializeToString()
    return content


def test_a_configuration_runs_no_yaml_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(f"trainer: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    for command in (["fit"], ["splits", "1", "2", "--", "test"]):
        fails(capsys, *command, "--config", tmp_path / "bad.yaml")
    assert not (tmp_path / "made").exists()


def test_a_picture_is_never_postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For which Pillow would start Ghostscript."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "EPS")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(VideoError, match="is no picture that can be decoded"):
        ImageReader(tmp_path / "a.jpg")
    assert not (tmp_path / "started").exists()


def test_names_give_a_terminal_no_orders(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b]0;owned\x07\x1b[2J\u202e.mp4"
    (tmp_path / name).write_bytes(b"no video")
    (tmp_path / "list.csv").write_text(f"path,label\n{name},left\n", encoding="utf-8")
    for video in (tmp_path / name, tmp_path / "list.csv"):
        with pytest.raises(SystemExit) as ended:
            main(["classify", str(tiny_checkpoint), str(video)])
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert not {"\x1b", "\x07", "\u202e"} & set(said.out + said.err)
        assert r"\x1b]0;owned\x07\x1b[2J\u202e.mp4" in said.err
