"""What the data module makes of missing videos, of a choice of reader and of a metadata cache."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

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


def test_videos_that_an_epoch_leaves_out(tmp_path: Path, said: list[str]) -> None:
    for number in range(11):
        (tmp_path / f"{number}.mp4").touch()
    (tmp_path / "train.txt").write_text("\n".join(f"{number}.mp4 x" for number in range(11)))
    data = VideoDataModule(Preprocessing(), train_list=f"{tmp_path}/train.txt", batch_size=4)
    data.setup("fit")
    assert said[1:] == [
        "train: each epoch leaves out 3 of the 11 videos, others each time, because data.batch_size 4 does not divide "
        "them"
    ]
    data.trainer = SimpleNamespace(world_size=2)
    data.setup("fit")
    assert said[3].endswith("because data.batch_size 4 x 2 devices does not divide them")
    data.batch_size, data.trainer = 11, None
    data.setup("fit")
    assert len(said) == 5


def test_a_test_list_of_trained_videos(tmp_path: Path, said: list[str]) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "train.txt").write_text("a.mp4 x\nb.mp4 y\ngone.mp4 y\n")
    (tmp_path / "test.txt").write_text(f"{tmp_path}/../{tmp_path.name}/b.mp4 y\nc.mp4 x\n")
    lists = {name: f"{tmp_path}/{name.removesuffix('_list')}.txt" for name in ("train_list", "test_list")}
    VideoDataModule(Preprocessing(), **lists).setup("test")
    assert said[1:] == [
        "Warning: 1 of 2 videos of data.test_list are in data.train_list too, such as "
        f"{tmp_path}/../{tmp_path.name}/b.mp4: their accuracy is that of videos learnt by heart"
    ]
    (tmp_path / "train.txt").unlink()
    data = VideoDataModule(Preprocessing(), **lists)
    data.class_names = ("x", "y")  # of a checkpoint
    data.setup("test")
    assert len(said) == 3


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
