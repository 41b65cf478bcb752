"""Disks that are full or may only be read: one sentence, nothing half written, and the same command goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from campaign import Running, disk, fault, fill, fit, lines_of, scores, status
from conftest import moving_square, write_video

Writer = Callable[[Path], Path]
KILOBYTES = 4096
SENTENCE = "a2video: error: "
STEPS = ["--trainer.log_every_n_steps=1", "--data.batch_size=1", "--trainer.max_epochs=30"]


def assert_whole(out: Path) -> int:
    """Every checkpoint and table is whole, nothing else has a name; the steps of last.ckpt."""
    for path in out.rglob("*"):
        assert path.name.count(".part") == 0 or path.is_dir(), path
        assert path.is_dir() or path.stat().st_size or path.name == "ballast", path
    for table in out.glob("logs/version_*/metrics.csv"):
        lines_of(table)
    steps = [torch.load(path, weights_only=True)["global_step"] for path in sorted(out.glob("*.ckpt"))]
    return max(steps, default=0)


def stopped(running: Running, *words: str) -> None:
    assert running.end() == 2, running.text
    assert running.last_line.startswith(SENTENCE), running.text
    assert "Traceback" not in running.text
    assert any(word in running.last_line for word in words), running.last_line


@fault(
    "disk full when a checkpoint is written",
    before="status 2, one sentence, the checkpoint before is whole",
    now="the same; there is room again: --ckpt_path last goes on",
)
def test_full_at_a_checkpoint(write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        ballast = fill(folder, but_kilobytes=75)  # for two checkpoints
        running = Running(fit(config, folder / "out", *STEPS), tmp_path)
        stopped(running, ".ckpt cannot be written (No space left on device)")
        ballast.unlink()
        steps = assert_whole(folder / "out")
        assert steps in (0, 8)
        again = fit(config, folder / "out", *STEPS, "--ckpt_path=last", "--trainer.max_epochs=3")
        code, text = status(again, tmp_path)
        assert code == 0, text
        assert assert_whole(folder / "out") == 24


@fault(
    "disk full when metrics.csv and TensorBoard's events are written",
    before="4 tracebacks, status 1, learning_curves.png of 0 bytes",
    now="status 2, one sentence, no file half written",
    quick=True,
)
def test_full_at_metrics(write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        running = Running(fit(config, folder / "out", *STEPS, "--trainer.max_epochs=300"), tmp_path)
        running.wait_for((folder / "out/last.ckpt").exists)
        fill(folder)
        stopped(running, "No space left on device): make room for it, then go on from the last checkpoint")
        assert assert_whole(folder / "out") % 8 == 0
        assert running.left() == []


@fault(
    "output folder may only be read from the start: fit, test, classify, export, attend",
    before="as now",
    now="status 2, one sentence before any work",
)
def test_read_only_from_the_start(write_config: Writer, trained: Path, small_data: Path, tmp_path: Path) -> None:
    config, checkpoint, video = write_config(tmp_path), trained / "best.ckpt", small_data / "test/left/0 ü.mp4"
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        for command in (
            fit(config, folder / "out", *STEPS),
            scores(config, trained, folder / "out"),
            ["classify", str(checkpoint), str(video), "--out", str(folder / "out.csv")],
            ["export", str(checkpoint), "--to", "torch", "--out", str(folder / "out.safetensors")],
            ["attend", str(checkpoint), str(video), "--out", str(folder / "out.html")],
        ):
            stopped(Running(command, tmp_path), "Read-only file system")


@fault(
    "output folder becomes read-only during fit",
    before="two tracebacks, status 1",
    now="status 2, one sentence; the last checkpoint is whole",
)
def test_read_only_later(write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        out = folder / "out"
        running = Running(fit(config, out, *STEPS), tmp_path)
        running.wait_for((out / "last.ckpt").exists)
        subprocess.run(["mount", "--bind", str(out), str(out)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], check=True)  # while files in it are open
        stopped(running, "Read-only file system")
        assert assert_whole(out) % 8 == 0


@pytest.mark.parametrize("kilobytes", [8, 32, 64])
@fault(
    "disk full when the results of a test are written, {kilobytes} kB free",
    before="one sentence; a traceback and half a picture where that was a picture",
    now="one sentence; there is room again: the same command ends it without reading a video again",
)
def test_full_at_results(write_config: Writer, trained: Path, tmp_path: Path, kilobytes: int) -> None:
    config = write_config(tmp_path)
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        ballast = fill(folder, kilobytes)
        stopped(Running(scores(config, trained, folder / "out"), tmp_path), "No space left on device")
        ballast.unlink()
        assert_whole(folder / "out")
        code, text = status(scores(config, trained, folder / "out"), tmp_path)
        assert code == 0, text
        assert "5 of 5 videos were scored by this test before" in text or kilobytes == 8
        assert json.loads((folder / "out/results.json").read_text())["num_scored"] == 5


@fault(
    "disk full when classify appends to --out",
    before="as now",
    now="status 2, one sentence, whole lines only; there is room again: the same command goes on, each video once",
)
def test_full_at_classify(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for number in range(40):
        write_video(tmp_path / f"videos/{number}.mp4", moving_square(1, seed=number))
    with disk(tmp_path / "disk", KILOBYTES) as folder:
        command = ["classify", str(tiny_checkpoint), str(tmp_path / "videos"), "--out", str(folder / "out.jsonl")]
        ballast = fill(folder, 8)
        stopped(Running(command, tmp_path), "out.jsonl cannot be written (No space left on device)")
        done = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        assert 0 < len(done) < 40
        ballast.unlink()
        code, text = status(command, tmp_path)
        assert code == 0, text
        lines = [json.loads(line)["path"] for line in (folder / "out.jsonl").read_text().splitlines()]
        assert len(lines) == len(set(lines)) == 40
        assert lines[: len(done)] == [line["path"] for line in done]


@fault(
    "a command's output goes to a full disk (> /dev/full)",
    before="a traceback, status 1",
    now="status 2, one sentence",
    quick=True,
)
def test_full_output() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "a2video", "splits", "1", "2", "--", "test", "--out", "{split}"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"{SENTENCE}the output cannot be written (No space left on device): make room for it\n"
