"""The debug recipe's losses are those of tests/golden/debug_losses.json, whatever decodes the videos.

python tests/test_golden_losses.py        # writes that file, after a change that is meant to change them
"""

from __future__ import annotations

import json
import sys
import tempfile
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from ranks import recorded

from a2video import open_video
from a2video.cli import main

sys.path.insert(0, str(REPOSITORY / "data_prep"))
import motion

CONFIG = REPOSITORY / "configs/debug.yaml"
GOLDEN = REPOSITORY / "tests/golden/debug_losses.json"
SIDE = 32  # short_side and crop_size of the recipe
NUM_VIDEOS = {"train": 18, "val": 9}


def small(frames: np.ndarray) -> np.ndarray:
    """A quarter of each side, in whole numbers: nothing is left to be resized, which differs between CPUs."""
    blocks = frames.reshape(len(frames), SIDE, motion.SIZE // SIDE, SIDE, motion.SIZE // SIDE, 3)
    return (blocks.sum((2, 4), dtype=np.int64) // (motion.SIZE // SIDE) ** 2).astype(np.uint8)


def encode_exactly(path: Path, frames: np.ndarray) -> None:
    """Takes the place of motion.encode: no codec's version can change a pixel."""
    frames = small(frames)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=motion.FRAME_RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, motion.FRAME_RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def make_videos(folder: Path) -> Path:
    """The first videos of the motion data with seed 0, as `python data_prep/motion.py` draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion, "encode", encode_exactly)
        for split, count in NUM_VIDEOS.items():
            (folder / split).mkdir(parents=True)
            rows = ["path,label"]
            for index in range(count):
                motion.make_video((folder / split / f"{index}.mkv", motion.DIFFICULTIES["easy"], 0, split, index))
                rows.append(f"{split}/{index}.mkv,{motion.label_of(0, split, index)}")
            (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def losses(videos: Path, out: Path, num_workers: int) -> list[float]:
    """Of all steps of the recipe."""
    options = [f"--data.{split}_list={videos / split}.csv" for split in NUM_VIDEOS]
    options += [f"--trainer.default_root_dir={out}", f"--data.num_workers={num_workers}", "--num_threads=0"]
    options += ["--trainer.precision=64-true"]  # in float32 rounding on another CPU grows to 1e-3 in these steps
    options += ["--trainer.callbacks+=ranks.Record", f"--trainer.callbacks.folder={out}"]
    main(["fit", "--config", str(CONFIG), *options])
    return recorded(out, 1)[0]["losses"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("motion"))


def test_pixels_are_those_that_were_drawn(videos: Path) -> None:
    drawn = motion.render(motion.label_of(0, "train", 3), np.random.default_rng([0, 0, 3]), motion.DIFFICULTIES["easy"])
    with open_video(videos / "train/3.mkv") as video:
        assert np.array_equal(video.get_frames([0, 31, 59]), small(drawn)[[0, 31, 59]])


def test_losses_are_golden_and_the_same_with_any_number_of_workers(videos: Path, tmp_path: Path) -> None:
    alone = losses(videos, tmp_path / "0", 0)
    # without AVX2 torch's initial weights are rounded differently, and these steps enlarge differences 10,000 times
    tolerance = 1e-7 if torch.backends.cpu.get_cpu_capability().startswith("AVX") else 5e-3
    assert alone == pytest.approx(json.loads(GOLDEN.read_text())["losses"], rel=tolerance)
    for num_workers in (1, 2):
        assert losses(videos, tmp_path / str(num_workers), num_workers) == alone


def write() -> None:
    """The command line."""
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(Path(folder) / "videos")
        content = {
            "command": "python tests/test_golden_losses.py",
            "versions": {name: version(name) for name in ("torch", "av", "numpy")},
            "losses": losses(videos, Path(folder) / "out", 0),
        }
    GOLDEN.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    write()
