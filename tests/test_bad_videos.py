"""Bad videos through the real command line: replaced and listed in training, listed and counted in testing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from a2video.cli import main

Writer = Callable[[Path], Path]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers inherit the harmful reader by a fork")


def write_list(path: Path, small_data: Path, split: str, bad: dict[str, str]) -> Path:
    """The list of a split with bad videos (name: label) before it; each is a copy of a good one, or broken."""
    good = [f"{small_data}/{row}" for row in (small_data / f"{split}.csv").read_text("utf-8").splitlines()[1:]]
    for name in bad:
        shutil.copy(good[0].split(",")[0], path.parent / name)
        if name.startswith("text"):
            (path.parent / name).write_text("text")
        elif name.startswith("truncated"):
            os.truncate(path.parent / name, (path.parent / name).stat().st_size // 2)
    path.write_text("\n".join(["path,label", *(f"{name},{label}" for name, label in bad.items()), *good]), "utf-8")
    return path


def bad_rows(out: Path) -> list[tuple[str, str, str]]:
    """(name, rank, epoch) in bad_videos.csv, which is there only if a video was bad."""
    if not (out / "bad_videos.csv").exists():
        return []
    with (out / "bad_videos.csv").open(encoding="utf-8") as file:
        return [(Path(row["path"]).name, row["rank"], row["epoch"]) for row in csv.DictReader(file)]


def stops(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(list(args))
    assert exit_info.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("a2video: error: ")
    return message


@pytest.fixture
def fit(write_config: Writer, small_data: Path, tmp_path: Path) -> list[str]:
    """The command that trains with bad videos of each kind; results of the last epoch in out/last.ckpt."""
    bad = {"text.mp4": "left", "hang.mp4": "right", "crash.mp4": "left", "truncated.mp4": "left"}
    options = [f"--data.train_list={write_list(tmp_path / 'train.csv', small_data, 'train', bad)}"]
    options += ["--data.max_bad_share=0.5", "--data.time_limit_seconds=0.8", "--trainer.max_epochs=2"]
    return ["fit", "--config", str(write_config(tmp_path)), *options]


def test_training_goes_on_without_bad_videos(
    fit: list[str], harmful_videos: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for num_workers in (1, 2):
        main([*fit, f"--data.num_workers={num_workers}", "--overwrite=true"])
        rows = bad_rows(tmp_path / "out")
        assert sorted(name for name, _, _ in rows) == ["crash.mp4", "hang.mp4", "text.mp4", "truncated.mp4"]
        assert {rank for _, rank, _ in rows} == {"0"}
        assert {epoch for _, _, epoch in rows} == {"0"}
        weights.append(torch.load(tmp_path / "out/last.ckpt", weights_only=True))
    assert weights[0]["global_step"] == 6  # every batch was full
    assert all(torch.equal(w, weights[1]["state_dict"][name]) for name, w in weights[0]["state_dict"].items())
    text = (tmp_path / "out/bad_videos.csv").read_text()
    assert f"{tmp_path}/hang.mp4,took longer than 0.8 s to read,0,0\n" in text
    assert "/crash.mp4,the second process that read it was killed by signal 11" in text
    assert f"Bad videos: 4 of 12 train videos could not be read, see {tmp_path}/out/bad_videos.csv" in (
        capsys.readouterr().out
    )
    resume = [*fit, f"--ckpt_path={tmp_path / 'out/last.ckpt'}", "--trainer.max_epochs=3", "--data.num_workers=1"]
    main(resume)
    assert len(bad_rows(tmp_path / "out")) == 4  # they are in the file already


def test_too_many_bad_videos_stop_the_run(
    fit: list[str], harmful_videos: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = stops(capsys, *fit, "--data.max_bad_share=0.2", "--data.num_workers=2")
    assert (
        "3 of the 12 training videos could not be read, more than the share of 0.2 that data.max_bad_share" in message
    )
    assert "out/bad_videos.csv" in message
    assert len(bad_rows(tmp_path / "out")) == 3


def test_validation_goes_on_and_says_what_it_left_out(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--config", str(write_config(tmp_path)), "--trainer.max_epochs=2", "--data.batch_size=1"]
    some = write_list(tmp_path / "some.csv", small_data, "val", {"text.mp4": "left"})
    main([*fit, f"--data.val_list={some}"])
    assert bad_rows(tmp_path / "out") == [("text.mp4", "0", "0")]
    assert "Bad videos: 1 of 5 val videos could not be read" in capsys.readouterr().out
    with (tmp_path / "out/logs/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/top1"]]
    assert [float(row["val/num_unscored"]) for row in rows] == [1, 1]
    assert all(float(row["val/top1"]) in map(pytest.approx, (0, 0.2, 0.4, 0.6, 0.8)) for row in rows)  # of all five
    assert all(0.3 < float(row["val/loss"]) < 3 for row in rows)
    main([*fit, "--overwrite=true"])
    assert bad_rows(tmp_path / "out") == []
    assert "Bad videos" not in capsys.readouterr().out

    (tmp_path / "none.csv").write_text("path,label\ntext.mp4,left\n")
    message = stops(capsys, *fit, "--overwrite=true", f"--data.val_list={tmp_path / 'none.csv'}")
    assert "no video of data.val_list could be read" in message
    validate = ["validate", "--config", str(tmp_path / "config file.yaml"), f"--ckpt_path={trained / 'best.ckpt'}"]
    main([*validate, f"--data.val_list={some}"])
    assert "Coverage 80.0%: 1 of 5 videos not scored" in capsys.readouterr().out


@pytest.mark.parametrize("num_workers", [1, 2])
def test_testing_counts_harmful_videos(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, harmful_videos: None,
    capsys: pytest.CaptureFixture[str], num_workers: int,
) -> None:  # fmt: skip
    bad = {"text.mp4": "left", "crash.mp4": "right", "hang.mp4": "left"}
    test_list = write_list(tmp_path / "test.csv", small_data, "test", bad)
    options = ["--config", str(write_config(tmp_path)), f"--ckpt_path={trained / 'best.ckpt'}"]
    options += [f"--data.test_list={test_list}", "--data.time_limit_seconds=0.6", f"--data.num_workers={num_workers}"]
    main(["test", *options])
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert (results["num_videos"], results["num_scored"], results["coverage"]) == (8, 5, 0.625)
    for name in ("video_top1", "video_top5"):
        assert results[f"{name}_all"] == pytest.approx(results[name] * 5 / 8)
    reasons = {Path(entry["path"]).name: entry["error"] for entry in results["failed"]}
    assert set(reasons) == set(bad)
    assert reasons["hang.mp4"] == f"{tmp_path}/hang.mp4: took longer than 0.6 s to read"
    assert "killed by signal 11" in reasons["crash.mp4"]
    printed = capsys.readouterr().out
    assert "not scored: " in printed
    assert "Coverage 62.5%: 3 of 8 videos not scored" in printed
    main(["predict", *options])
    assert "Predicted 5 of 8 videos" in capsys.readouterr().out


def test_two_ranks(write_config: Writer, small_data: Path, tmp_path: Path) -> None:
    """With seed 0 `text 1.mp4` is one of two videos that wait for epoch 1: the run passes epoch 0, then stops."""
    bad = {"text 0.mp4": "left", "text 1.mp4": "right"}
    train = write_list(tmp_path / "train.csv", small_data, "train", bad)
    command = [sys.executable, "-m", "a2video", "fit", "--config", str(write_config(tmp_path))]
    command += [f"--data.train_list={train}", "--data.batch_size=2", "--data.num_workers=1"]
    command += ["--data.max_bad_share=0.1", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=3"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert stopped.returncode == 2, stopped.stderr
    assert "2 of the 10 training videos could not be read, more than the share of 0.1" in stopped.stderr
    rows = bad_rows(tmp_path / "out")
    assert (rows[0][0], rows[0][2]) == ("text 0.mp4", "0")
    assert {(name, epoch) for name, _, epoch in rows[1:]} - {("text 0.mp4", "1")} == {("text 1.mp4", "1")}
    assert len({(name, rank) for name, rank, _ in rows}) == len(rows)
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 2


def test_options(write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--config", str(write_config(tmp_path))]
    for option in ("--data.time_limit_seconds=0", "--data.max_bad_share=1.1"):
        assert "expected data.time_limit_seconds > 0 and data.max_bad_share in [0, 1]" in stops(capsys, *fit, option)
    main([*fit, "--trainer.overfit_batches=1", "--trainer.max_epochs=2", "--data.num_workers=1"])
