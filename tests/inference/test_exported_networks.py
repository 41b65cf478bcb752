"""Networks that leave for other runtimes: the same predictions there, a description beside them, nothing half done."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_square, write_video
from exported import CLIPS, FILES, NAMES
from torch import nn

from a2video import VideoClassifier
from a2video.cli import main
from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference import converters
from a2video.inference.backends import TorchBackend
from a2video.inference.description import Description, beside
from a2video.inference.export import export
from a2video.inference.weights import Trained
from a2video.models.double_attention import DoubleAttention
from a2video.models.resnet import ResNet2d, Stage, Stem


@pytest.mark.parametrize(
    ("target", "backend"), [("torch", "auto"), ("onnx", "auto"), ("onnx", "openvino"), ("openvino", "openvino")]
)
def test_an_exported_network_predicts_the_same(
    tiny_checkpoint: Path, exported: Path, small_data: Path, target: str, backend: str
) -> None:
    ours = VideoClassifier.load(tiny_checkpoint, "cpu")
    theirs = VideoClassifier.load(exported / target / FILES[target], "cpu", backend=backend, num_threads=1)
    assert (theirs.class_names, theirs.preprocessing) == (ours.class_names, ours.preprocessing)
    videos = [small_data / "test/left/0 ü.mp4", small_data / "test/right/1 ü.mp4"]
    for one, other in zip(ours(videos), theirs(videos), strict=True):
        assert dict(other.ranked) == pytest.approx(dict(one.ranked), abs=1e-5)
        assert other.label == one.label
        assert len(other.clips) == len(one.clips) == 3
        for clip, other_clip in zip(one.clips, other.clips, strict=True):
            assert dict(other_clip.ranked) == pytest.approx(dict(clip.ranked), abs=1e-5)
            assert (other_clip.start_seconds, other_clip.end_seconds) == (clip.start_seconds, clip.end_seconds)


def test_any_number_of_clips(tiny_checkpoint: Path, exported: Path) -> None:
    ours = VideoClassifier.load(tiny_checkpoint, "cpu").backend
    for target in ("onnx", "openvino"):
        theirs = VideoClassifier.load(exported / target / FILES[target]).backend
        for num in (1, 5, 17):  # the last ones in two passes
            clips = torch.randint(0, 256, (num, 3, 4, 24, 24), dtype=torch.uint8)
            logits = theirs(clips)
            assert logits.dtype == torch.float32
            torch.testing.assert_close(logits, ours(clips), atol=1e-4, rtol=1e-4)


def test_the_description_says_how_to_use_the_network(exported: Path, small_data: Path) -> None:
    text = (exported / "openvino/net.xml.json").read_text(encoding="utf-8")
    about = json.loads(text)
    assert about["network"]["builder"] == "a2net_tiny"
    assert about["class_names"] == NAMES
    assert about["input"]["shape"] == ["N", 3, 4, 24, 24]
    assert (about["input"]["name"], about["input"]["dtype"]) == ("clips", "uint8")
    assert (about["output"]["name"], about["output"]["shape"]) == ("logits", ["N", 2])
    assert about["preprocessing"] == CLIPS.to_dict()
    assert set(about["sha256"]) == {".xml", ".bin"}
    for words in (
        "bilinear with antialiasing",
        "crop: 3 of 24 x 24",
        "begins again from its first frame",
        "red, green",
    ):
        assert words in text
    check = about["check"]
    assert (check["source"], check["num_videos"], check["num_clips"]) == (str(small_data / "test.csv"), 5, 45)
    assert check["largest_difference"] < 1e-4
    assert check["torch_top1"] == check["exported_top1"]
    assert (check["equal_top1"], check["top1_change"]) == (1.0, 0.0)
    assert (
        "float32" in json.loads((exported / "torch/net.safetensors.json").read_text(encoding="utf-8"))["input"]["dtype"]
    )


def test_nothing_of_this_machine_is_in_the_files(exported: Path) -> None:
    for file in (exported / "onnx/net.onnx", exported / "openvino/net.xml", exported / "openvino/net.bin"):
        content = file.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content


def test_raw_frames_go_in_as_they_are(tiny_checkpoint: Path, exported: Path) -> None:
    """Without a2video: uint8 in, the logits of normalised clips out."""
    import onnxruntime

    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 24, 24), dtype=np.uint8)
    session = onnxruntime.InferenceSession(exported / "onnx/net.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"clips": clips})
    network = VideoClassifier.load(tiny_checkpoint, "cpu").network
    with torch.inference_mode():
        by_hand = network(CLIPS.normalize(torch.from_numpy(clips))).numpy()
    np.testing.assert_allclose(logits, by_hand, atol=1e-4)


def test_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = Stage(4, (((1, 1), (3, 3)),), (2, 2))
    attention = {"conv2.1": partial(DoubleAttention, dims=2)}
    network = ResNet2d(Stem(8, (3, 3), (2, 2)), [stage], 2, attention=attention).eval()
    nn.init.ones_(network.get_submodule("conv2.1.attention.norm").weight)
    one = Preprocessing(num_frames=1, frame_stride=1, short_side=40, crop_size=33, num_clips=1, num_crops=1)
    trained, out = Trained(network, ("left", "right"), one), tmp_path / "net.onnx"
    converters.write_onnx(trained, out)
    sums = {".onnx": hashlib.sha256(out.read_bytes()).hexdigest()}
    description = Description(None, trained.class_names, one, "float32", sums)
    beside(out).write_text(description.to_json(), encoding="utf-8")
    frames = np.random.default_rng(0).integers(0, 256, (1, 50, 40, 3), dtype=np.uint8)
    ours = VideoClassifier(TorchBackend(network, one, "cpu"), trained.class_names, one)(frames, fps=1)
    for backend in ("onnxruntime", "openvino"):
        theirs = VideoClassifier.load(out, backend=backend)(frames, fps=1)
        assert dict(theirs.ranked) == pytest.approx(dict(ours.ranked), abs=1e-5)


def test_int8_and_bfloat16_say_what_they_cost(
    tiny_checkpoint: Path,
    exported: Path,
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(converters, "write_onnx", lambda _, path: shutil.copy(exported / "onnx/net.onnx", path))
    check = ["--check", str(small_data / "test.csv")]
    calibrate = ["--calibrate", str(small_data / "train")]
    sizes = [(exported / "openvino/net.bin").stat().st_size]
    for precision, extra in (("bfloat16", []), ("int8", calibrate)):
        out = tmp_path / f"{precision}.xml"
        options = [
            *map(str, (tiny_checkpoint, "--to", "openvino", "--out", out, "--precision", precision)),
            *check,
            *extra,
        ]
        with pytest.raises(SystemExit) as exit_info:
            main(["export", *options])
        assert exit_info.value.code == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[-3].startswith("Checked on 5 videos (45 clips) of ")
        assert printed[-2].startswith("Top-1 accuracy: torch ")
        assert printed[-1].startswith(f"Wrote {out} (")
        sizes.append(out.with_suffix(".bin").stat().st_size)
        check_figures = json.loads(beside(out).read_text(encoding="utf-8"))["check"]
        change = check_figures["exported_top1"] - check_figures["torch_top1"]
        assert check_figures["top1_change"] == pytest.approx(change)
        assert VideoClassifier.load(out)(small_data / "test/left/0 ü.mp4").label in NAMES
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.5 * sizes[0]
    assert not list(tmp_path.glob(".*"))


def refused(arguments: tuple[object, ...], **options: object) -> str:
    with pytest.raises(InputError) as caught:
        export(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_network_with_other_results_is_not_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = converters.write_safetensors

    def write_others(trained: Trained, path: Path) -> None:
        """Other weights than those that are compared with."""
        bias = trained.network.fc.bias
        before = bias.detach().clone()
        with torch.no_grad():
            bias += torch.tensor([1.0, 0.0])
            write(trained, path)
            bias.copy_(before)

    monkeypatch.setattr(converters, "write_safetensors", write_others)
    out = tmp_path / "new folder/net.safetensors"
    assert "its probabilities differ from torch's by up to" in refused((tiny_checkpoint, "torch", out))
    assert list(out.parent.iterdir()) == []


def test_a_broken_video_ends_it_with_nothing_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out/net.safetensors"
    assert "broken.mp4" in refused((tiny_checkpoint, "torch", out), check=[tmp_path / "broken.mp4"])
    assert list(out.parent.iterdir()) == []


def test_video_files_are_compared_on_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"{number}.mp4", moving_square(1, seed=number)) for number in range(2)]
    comparison, files = export(tiny_checkpoint, "torch", tmp_path / "net.safetensors", check=videos)
    assert (comparison.num_videos, comparison.torch_top1) == (2, None)
    assert comparison.largest_difference < 1e-6
    assert [file.name for file in files] == ["net.safetensors", "net.safetensors.json"]


def test_options_that_do_not_fit(tiny_checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    out = exported / "torch/net.safetensors"
    before = out.read_bytes()
    assert "exists" in refused((tiny_checkpoint, "torch", out))
    assert out.read_bytes() == before
    assert "ends in .xml" in refused((tiny_checkpoint, "openvino", tmp_path / "net.onnx"))
    assert "for --to openvino only" in refused((tiny_checkpoint, "onnx", tmp_path / "net.onnx", "int8"))
    assert "for --to openvino only" in refused((tiny_checkpoint, "torch", tmp_path / "n.safetensors", "bfloat16"))
    assert "needs --calibrate" in refused((tiny_checkpoint, "openvino", tmp_path / "net.xml", "int8"))
    assert "--calibrate" in refused((tiny_checkpoint, "openvino", tmp_path / "net.xml"), calibrate=["a.mp4"])
    assert list(tmp_path.iterdir()) == []


def test_weights_can_be_exported_again(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "torch", tmp_path / "copy")
    weights = tmp_path / "copy/net.safetensors"
    before = weights.read_bytes()
    export(weights, "torch", weights, overwrite=True)
    assert weights.read_bytes() == before


def test_no_telemetry_and_no_lightning(exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys, a2video\n"
        f"a2video.VideoClassifier.load({str(exported / 'openvino/net.xml')!r})\n"
        "assert 'openvino' in sys.modules\n"
        "print('UNWANTED', *{'lightning', 'openvino_telemetry', 'onnx', 'nncf'} & set(sys.modules))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True,
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert run.stdout.split() == ["UNWANTED"]
    assert not (tmp_path / "intel").exists()
