"""What the data module makes of missing videos, of a choice of reader and of a metadata cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from a2video.cli import main
from a2video.data.metadata import MetadataCache
from a2video.data.pyav_reader import PyAVReader
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


def test_another_reader_and_a_metadata_cache_through_the_command_line(
    trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """decord reads these plain files exactly, so that all three ways score the same; a wrong cache is one sentence."""
    cache = MetadataCache(tmp_path / "metadata.sqlite")
    for video in small_data.glob("test/*/*.mp4"):
        with PyAVReader(video) as reader:
            cache.put(video, reader.record())
    config = trained.parent / "config file.yaml"
    test = ["test", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt")]
    decord = "a2video.data.decord_reader.DecordReader"
    results = []
    for number, options in enumerate([[], ["--data.metadata", str(cache.path)], ["--data.reader", decord]]):
        folder = tmp_path / str(number)
        main([*test, "--trainer.default_root_dir", str(folder), *options])
        results.append(json.loads((folder / "results.json").read_text()))
    assert [result.pop("reader") for result in results] == [
        *["a2video.data.pyav_reader.PyAVReader"] * 2,
        decord,
    ]
    assert results[0] == results[1] == results[2]
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*test, "--trainer.default_root_dir", str(tmp_path / "3"), "--data.metadata", str(config)])
    assert caught.value.code == 2
    assert "is no metadata cache" in capsys.readouterr().err
