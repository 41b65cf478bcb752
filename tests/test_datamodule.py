"""What the data module makes of lists whose videos are not all there."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2video.data.transforms import Preprocessing
from a2video.datamodule import VideoDataModule
from a2video.errors import InputError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("a2video.datamodule.rank_zero_info", lines.append)
    return lines


def test_missing_videos(tmp_path: Path, said: list[str]) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text("a.mp4 x\nb.mp4 y\ngone.mp4 z\n")
    lists = {"train_list": f"{tmp_path}/train.txt", "val_list": f"{tmp_path}/val.txt", "batch_size": 2}
    with pytest.raises(InputError, match=r"train.txt line 3: video .*gone.mp4 does not exist"):
        VideoDataModule(Preprocessing(), **lists).setup("fit")
    data = VideoDataModule(Preprocessing(), allow_missing=True, **lists)
    data.setup("fit")
    assert (len(data.videos["train"]), len(data.videos["val"])) == (2, 3)
    assert data.videos["train"].class_names == data.videos["val"].class_names == ("x", "y", "z")
    assert said[1] == "train: 2 of 3 listed videos are present; the rest is left out"
    assert said[3] == "val: 2 of 3 listed videos are present; the rest is counted as not readable"
