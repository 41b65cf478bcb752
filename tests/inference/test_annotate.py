"""Copies of real videos with classes drawn on them, read back frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colours import COLOURS, colour_classifier
from conftest import write_video

from a2video import InputError, VideoError, open_video
from a2video.inference.annotate import annotate, draw_box
from a2video.inference.timeline import timeline


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.concatenate([np.full((30, 97, 201, 3), COLOURS[name], np.uint8) for name in ("red", "blue")])
    return write_video(tmp_path_factory.mktemp("plain") / "plain.mp4", frames)


def test_every_frame_is_there_at_its_time_and_the_box_follows(video: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    out = annotate(timeline(colour_classifier(), video), tmp_path / "copy.mp4", shares.append)
    assert shares[-1] == 1
    with open_video(out) as copy, open_video(video) as original:
        np.testing.assert_allclose(copy.times, original.times, atol=1e-4)
        frames = copy.get_frames(range(60)).astype(int)
    assert frames.shape == (60, 96, 200, 3)  # the odd row and column are left out
    assert abs(frames[3, -1, -1] - COLOURS["red"]).max() < 12  # outside of the box nothing changes
    assert abs(frames[50, -1, -1] - COLOURS["blue"]).max() < 12
    assert frames[3, 0, 0].max() < 120  # the box is dark
    boxes = frames[:, :45, :60]
    assert abs(boxes[3] - boxes[8]).mean() < 4
    text_then, text_later = ((boxes[n] > 170).all(-1) for n in (3, 50))
    assert (text_then != text_later).sum() > 10  # another class is written
    assert list(tmp_path.iterdir()) == [out]


def test_refusals(video: Path, tmp_path: Path) -> None:
    line = timeline(colour_classifier(), video)
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        annotate(line, tmp_path / "copy.avi")
    with pytest.raises(InputError, match="is the video itself"):
        annotate(line, video)
    copy = tmp_path / "gone.mp4"
    copy.write_bytes(video.read_bytes())
    line = timeline(colour_classifier(), copy)
    copy.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(VideoError):
        annotate(line, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["gone.mp4"]


def test_the_box_fits_into_small_frames() -> None:
    box = draw_box([("a very long name of a class indeed", 0.5), ("b", 0.25), ("c", 0.25)], 20, 30)
    assert box.shape[0] <= 20
    assert box.shape[1] <= 30
    assert 0.6 <= box[..., 3].min() <= box[..., 3].max() <= 1
    assert draw_box([("a", 1.0)], 720, 1280).shape[0] > box.shape[0]
