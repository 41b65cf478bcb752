"""Real encoded videos for the tests, and where the shared material lies."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` runs two tests at a time, some of them in two processes
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of the background of a shell; the processes of tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder shared/ beside the repository; tests that ask for it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared")
    return folder


def write_video(path: Path, frames: np.ndarray, fps: int = 30) -> Path:
    """Writes uint8 RGB frames (T, H, W, 3) as H.264; lossless, so a reader must give nearly the same pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "0", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def moving_square(direction: int, num_frames: int = 24, size: int = 32, seed: int = 0) -> np.ndarray:
    """A bright square that moves left (-1) or right (+1) over noise: uint8 (T, size, size, 3)."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60, (num_frames, size, size, 3), dtype=np.uint8)
    start, top = rng.integers(0, size, 2)
    for number, frame in enumerate(frames):
        columns = (start + direction * number + np.arange(8)) % size
        rows = (top + np.arange(8)) % size
        frame[np.ix_(rows, columns)] = 230
    return frames


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 + 4 + 5 real videos of the classes `left` and `right`, with train.csv, val.csv and test.csv."""
    folder = tmp_path_factory.mktemp("small data")  # with a space
    for split, count, first_seed in (("train", 8, 0), ("val", 4, 100), ("test", 5, 200)):
        rows = ["path,label"]
        for index in range(count):
            name, direction = (("left", -1), ("right", 1))[index % 2]
            video = f"{split}/{name}/{index} ü.mp4"
            write_video(folder / video, moving_square(direction, seed=first_seed + index))
            rows.append(f"{video},{name}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and val folders of two classes: horizontal and vertical stripes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("across", "down"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
                image[(slice(None, None, 4),) if name == "across" else (slice(None), slice(None, None, 4))] = 220
                Image.fromarray(image).save(folder / split / name / f"{number}.jpeg")
    return folder


CONFIG = """
trainer:
  default_root_dir: "{out}"
  accelerator: cpu
  max_epochs: 2
  enable_model_summary: false
model:
  network:
    class_path: a2video.models.a2net_tiny
    init_args: {{num_classes: 2}}
  optimizer:
    class_path: a2video.optimizers.Sgd
    init_args: {{lr: 0.05}}
  schedule:
    class_path: a2video.schedules.Cosine
    init_args: {{warmup_steps: 2}}
data:
  train_list: "{data}/train.csv"
  val_list: "{data}/val.csv"
  test_list: "{data}/test.csv"
  horizontal_flip: 0.0
  batch_size: 4
  num_workers: 0
  preprocessing:
    num_frames: 4
    frame_stride: 2
    short_side: 32
    crop_size: 24
    num_clips: 3
    num_crops: 3
"""


@pytest.fixture(scope="session")
def write_config(small_data: Path) -> Callable[[Path], Path]:
    """Writes a configuration of the small data whose outputs go to the folder it is given; returns its path."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config file.yaml"
        path.write_text(CONFIG.format(out=folder / "out", data=small_data), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, write_config: Callable[[Path], Path]) -> Path:
    """The output folder of one real `a2video fit` on the small data, with best.ckpt."""
    from a2video.cli import main

    config = write_config(tmp_path_factory.mktemp("trained"))
    main(["fit", "--config", str(config)])
    return config.parent / "out"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained a2net_tiny for the classes of the small data."""
    from exported import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See exported.make_exports."""
    from exported import make_exports

    return make_exports(tiny_checkpoint, small_data / "test.csv", tmp_path_factory.mktemp("exported"))


@pytest.fixture
def harmful_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a video hangs with the GIL held, crashes or ends the process if its name begins with that word."""
    from a2video.data import dataset

    load_views = dataset.load_views

    def load_or_harm(path: str, *rest: Any) -> Any:
        name = Path(path).name
        if name.startswith("hang"):
            ctypes.PyDLL(None).sleep(1000)
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("exit"):
            os._exit(3)
        return load_views(path, *rest)

    monkeypatch.setattr(dataset, "load_views", load_or_harm)
