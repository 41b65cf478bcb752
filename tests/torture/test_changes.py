"""What changes under a running command: lists, videos, the clock, its workers; and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import test_interruption
import torch
from campaign import QUIET, TINY, Running, fault, fit, scores, status
from conftest import moving_square, write_video
from test_interruption import assert_same_end

from a2video.checkpoint_files import newest_finite, newest_whole

Writer = Callable[[Path], Path]
YEAR = 365 * 24 * 3600.0
STEPS = ["--data.batch_size=1", "--data.num_workers=1", "--trainer.max_epochs=3"]


@pytest.fixture
def own(small_data: Path, write_config: Writer, tmp_path: Path) -> tuple[Path, Path]:
    """A configuration and a copy of the small data for it, which may be changed."""
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    config = write_config(tmp_path)
    config.write_text(config.read_text("utf-8").replace(str(small_data), str(data)), "utf-8")
    return config, data


@pytest.fixture(scope="module")
def whole(write_config: Writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed training leaves."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = status(fit(write_config(folder), folder / "out", *STEPS), folder)
    assert code == 0, text
    return folder / "out"


def halted(command: list[str], folder: Path, place: str) -> Running:
    """A command that stands still at a place until it gets SIGCONT."""
    running = Running(command, folder, A2VIDEO_FAULT=f"0 {place} SIGSTOP")
    running.wait_for(lambda: running.is_stopped)
    return running


def let_end(running: Running) -> None:
    running.signal_all(signal.SIGCONT)
    assert running.end() == 0, running.text
    assert running.left() == []


@fault(
    "the list of a training is edited, then lost, while it runs",
    before="as now",
    now="nothing changes: lists are read once",
)
def test_list_is_edited(whole: Path, own: tuple[Path, Path], tmp_path: Path) -> None:
    config, data = own
    running = halted(fit(config, tmp_path / "out", *STEPS), tmp_path, "a2video.recognizer:Recognizer.training_step 2")
    (data / "train.csv").write_text("path,label\nno.mp4,left\n")
    (data / "val.csv").unlink()
    let_end(running)
    ours, theirs = (torch.load(out / "last.ckpt", weights_only=True)["state_dict"] for out in (tmp_path / "out", whole))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


@fault(
    "training videos are deleted, cut off and replaced while it runs",
    before="as now",
    now="other videos take the place of the two that are gone, bad_videos.csv names both; the new one is read as it is",
)
def test_videos_change_in_fit(own: tuple[Path, Path], tmp_path: Path) -> None:
    config, data = own
    command = fit(config, tmp_path / "out", *STEPS, "--data.max_bad_share=0.5")
    running = halted(command, tmp_path, "a2video.recognizer:Recognizer.training_step 1")
    videos = sorted((data / "train").glob("*/*.mp4"))
    videos[0].unlink()
    os.truncate(videos[3], 300)
    new = write_video(tmp_path / "new.mp4", moving_square(1, num_frames=9, seed=77))
    new.replace(videos[5])  # at once: a worker, which goes on meanwhile, may rightly call half a file bad
    let_end(running)
    names = {line.split(",")[0] for line in (tmp_path / "out/bad_videos.csv").read_text("utf-8").splitlines()[1:]}
    assert names == {str(videos[0]), str(videos[3])}


@fault(
    "test videos are deleted and cut off while they are tested",
    before="as now",
    now="they count as not scored, results.json names both",
)
def test_videos_change_in_test(own: tuple[Path, Path], trained: Path, tmp_path: Path) -> None:
    config, data = own
    command = scores(config, trained, tmp_path / "out")
    running = halted(command, tmp_path, "a2video.recognizer:Recognizer.test_step 1")
    rows = (data / "test.csv").read_text("utf-8").splitlines()[1:]
    videos = [data / row.split(",")[0] for row in rows]
    videos[-1].unlink()
    os.truncate(videos[-2], 300)
    let_end(running)
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [Path(failed["path"]) for failed in results["failed"]] == videos[-2:]
    assert (results["num_scored"], results["coverage"]) == (3, 0.6)


@pytest.mark.parametrize("years", [-1, 1])
@fault(
    "the clock jumps {years:+} year and back again and again: fit, SIGTERM, fit again, test",
    before="TensorboardX's thread died of a jump back, and the training hung (seen at 4de9abd, logging as then)",
    now="nothing changes: no bit of the weights",
)
def test_clock(whole: Path, write_config: Writer, tmp_path: Path, years: int) -> None:
    config, out, jump = write_config(tmp_path), tmp_path / "out", {"A2VIDEO_CLOCK": str(years * YEAR)}
    command = fit(config, out, *STEPS)
    at = "0 a2video.recognizer:Recognizer.training_step 11 SIGTERM"
    code, text = status(command, tmp_path, A2VIDEO_FAULT=at, **jump)
    assert code == 143, text
    code, text = status([*command, "--ckpt_path=last"], tmp_path, **jump)
    assert code == 0, text
    assert_same_end(out, whole)
    code, text = status(scores(config, out, out, *TINY), tmp_path, **jump)
    assert code == 0, text


@fault(
    "the clock has jumped back between checkpoints, and the newest is damaged",
    before="went on from the file whose time is newest, here best.ckpt",
    now="goes on from the one with the most steps",
    quick=True,
)
def test_times_of_checkpoints(trained: Path, tmp_path: Path) -> None:
    names = {"last.ckpt": 24, "last-1.ckpt": 16, "best.ckpt": 8}
    content = torch.load(trained / "last.ckpt", weights_only=True)
    for age, (name, steps) in enumerate(names.items()):
        torch.save({**content, "global_step": steps}, tmp_path / name)
        os.utime(tmp_path / name, (1e9 + age, 1e9 + age))  # the oldest seems to be the newest
    assert newest_finite(tmp_path) == tmp_path / "last.ckpt"
    os.truncate(tmp_path / "last.ckpt", 1000)
    found, read = newest_whole(tmp_path / "last.ckpt")
    assert (found, read["global_step"]) == (tmp_path / "last-1.ckpt", 16)
    assert newest_finite(tmp_path) == tmp_path / "last-1.ckpt"


@fault(
    "SIGKILL to a worker",
    before="as now",
    now="a new one does its batches, no bit of the weights changes; a second death over a video accuses it",
)
def test_a_worker_is_killed(whole: Path, write_config: Writer, tmp_path: Path) -> None:
    command = fit(write_config(tmp_path), tmp_path / "out", *STEPS, "--data.num_workers=2")
    running = halted(command, tmp_path, "a2video.recognizer:Recognizer.training_step 2")
    main = running.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    os.kill(int(random.Random(0).choice(children)), signal.SIGKILL)
    let_end(running)
    assert not (tmp_path / "out/bad_videos.csv").exists()
    assert_same_end(tmp_path / "out", whole)


@fault(
    "SIGKILL to a training at four random moments, each time gone on with",
    before="of one kill: as now (tests/test_interruption.py)",
    now="ends with the weights of an undisturbed one",
    lost="at most one row of metrics.csv for each kill, no step",
)
def test_fit_is_killed(write_config: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_interruption, "NUM_KILLS", 4)
    test_interruption.test_sigkill_at_random_moments(write_config, tmp_path)


@fault(
    "SIGKILL to classify --out, then the same command again",
    before="as now",
    now="goes on after the last whole line, each video once",
)
def test_classify_is_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for number in range(60):
        write_video(tmp_path / f"videos/{number}.mp4", moving_square(1, seed=number))
    out = tmp_path / "out.jsonl"
    command = ["classify", str(tiny_checkpoint), str(tmp_path / "videos"), "--num-workers=2", "--out", str(out)]
    at = "0 a2video.inference.outputs:_append 31 SIGKILL"  # after the head of the file and 29 videos
    running = Running(command, tmp_path, A2VIDEO_FAULT=at)
    assert running.end() == -signal.SIGKILL, running.text
    assert running.left() == []
    with out.open("a") as file:
        file.write('{"path": "half')  # as if the kernel had written half a line
    code, text = status(command, tmp_path)
    assert code == 0, text
    paths = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert len(paths) == len(set(paths)) == 60
    assert "31 of 31 videos classified, 29 were done before" in text


@fault(
    "SIGKILL to serve",
    before="its folder with uploads stayed for ever",
    now="the next serve on the machine removes it",
)
def test_serve_is_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    first = Running(["serve", str(tiny_checkpoint), "--port=0"], tmp_path, TMPDIR=str(temporary))
    first.wait_for(lambda: "until Ctrl-C" in first.text)
    (left,) = temporary.glob("a2video-serve-*")
    second = Running(["serve", str(tiny_checkpoint), "--port=0"], tmp_path, TMPDIR=str(temporary))
    second.wait_for(lambda: "until Ctrl-C" in second.text)
    assert left.is_dir()  # of a server that runs
    for running in (first, second):
        running.signal_all(signal.SIGKILL)
        running.end()
    assert len(list(temporary.glob("a2video-serve-*"))) == 2
    for folder in temporary.iterdir():
        os.utime(folder, (1e9, 1e9))  # not of a server that begins just now
    third = Running(["serve", str(tiny_checkpoint), "--port=0"], tmp_path, TMPDIR=str(temporary))
    third.wait_for(lambda: "until Ctrl-C" in third.text)
    assert len(list(temporary.glob("a2video-serve-*"))) == 1
    third.signal_all(signal.SIGTERM)
    assert third.end() == 143
    assert list(temporary.glob("a2video-serve-*")) == []


@fault(
    "splits in real processes: the second one's checkpoint is missing, then there",
    before="as now",
    now="ends with that one's status and sentence; the first one's results stay and are not computed again",
)
def test_splits(write_config: Writer, trained: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    checkpoints = tmp_path / "1.ckpt", tmp_path / "2.ckpt"
    shutil.copy(trained / "best.ckpt", checkpoints[0])
    command = ["splits", "1", "2", "--", "test", "--config", str(config), "--ckpt_path={split}.ckpt", *QUIET]
    command.append("--trainer.default_root_dir=of {split}")
    code, text = status(command, tmp_path)
    assert code == 2, text
    assert "2.ckpt" in text.splitlines()[-1]
    first = (tmp_path / "of 1/results.json").read_bytes()
    shutil.copy(trained / "best.ckpt", checkpoints[1])
    code, text = status(command, tmp_path)
    assert code == 0, text
    assert "5 of 5 videos were scored by this test before" in text
    assert (tmp_path / "of 1/results.json").read_bytes() == first
    assert "mean" in text.splitlines()[0] + text
