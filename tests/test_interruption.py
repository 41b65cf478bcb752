"""Whenever a training is interrupted and resumed, it ends as if it had not been."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from test_cli import fails

from a2video.cli import main
from a2video.recognizer import Recognizer

Writer = Callable[[Path], Path]
MEASURED = ("train/clips_per_second", "train/data_wait")
NUM_KILLS = int(os.environ.get("A2VIDEO_NUM_KILLS", "1"))
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")


def fit_command(config: Path, *options: str) -> list[str]:
    """16 steps in 2 epochs, each of them logged."""
    network = ["--model.network=tiny_network.TinyNetwork", "--model.network.num_classes=2", "--data.batch_size=1"]
    quiet = ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    return ["fit", "--config", str(config), "--model.optimizer.lr=0.5", *network, *quiet, *options]


def status_of(command: list[str]) -> int:
    try:
        main(command)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def in_processes(command: list[str], **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "a2video", *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def status_of_processes(command: list[str]) -> int:
    process = in_processes(command)
    print(process.communicate(timeout=100)[0])
    return process.returncode


def rows(out: Path) -> dict[tuple[int, tuple[str, ...]], dict[str, str]]:
    """What was logged, of all parts of a run, but for times: by step and by the names that have a value."""
    merged = {}
    for file in sorted(out.glob("logs/version_*/metrics.csv")):
        for row in csv.DictReader(file.read_text().splitlines()):
            values = {name: value for name, value in row.items() if value and name not in MEASURED}
            merged[int(row["step"]), tuple(sorted(values))] = values
    return merged


def is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(is_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(is_same, ours, theirs))
    return bool(ours == theirs)


def assert_same_end(ours: Path, theirs: Path) -> None:
    ends = [torch.load(out / "last.ckpt", weights_only=True) for out in (ours, theirs)]
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "loops"):
        our, their = (end[name] for end in ends)
        if name == "loops":
            our, their = our["fit_loop"], their["fit_loop"]
            for loops in (our, their):
                loops.pop("state_dict")
                loops.pop("epoch_loop.val_loop.batch_progress")
        assert is_same(our, their), name
    randoms = [[rank["random"] for rank in end["a2video_position"]["ranks"]] for end in ends]
    assert is_same(*randoms)


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], None]:
    """Lets this process send itself a signal in the given call of a step of the Recognizer."""

    def set_up(step: str, at: int, number: int = signal.SIGTERM) -> None:
        original, count = getattr(Recognizer, step), [0]

        def signalling(self: Recognizer, batch: Any, batch_idx: int) -> Any:
            if not self.trainer.sanity_checking:
                count[0] += 1
                if count[0] == at:
                    os.kill(os.getpid(), number)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(Recognizer, step, signalling)

    return set_up


TWICE_VALIDATED = ("--trainer.val_check_interval=0.5",)
BY_STEPS = ("--trainer.max_steps=13", "--trainer.max_epochs=-1")
ACCUMULATED = (
    "--trainer.accumulate_grad_batches=3",
    "--data.augment=a2video.augment.Augment",
    "--data.augment.mixup=0.4",
)


@pytest.mark.parametrize(
    ("options", "step", "at", "options_then"),
    [
        ((), "training_step", 3, ("--data.num_workers=2",)),
        ((), "training_step", 8, ()),  # the epoch's last, its validation still to come
        ((), "validation_step", 3, ()),
        (ACCUMULATED, "training_step", 4, ()),
        (TWICE_VALIDATED, "validation_step", 1, ()),
        (BY_STEPS, "training_step", 11, ()),
    ],
)
def test_sigterm_loses_no_step(
    write_config: Writer, tmp_path: Path, signal_at: Callable[..., None], capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], step: str, at: int, options_then: tuple[str, ...],
) -> None:  # fmt: skip
    config = write_config(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert status_of(fit_command(config, *options, f"--trainer.default_root_dir={whole}")) == 0
    signal_at(step, at)
    command = fit_command(config, *options, f"--trainer.default_root_dir={parts}")
    capsys.readouterr()
    assert status_of(command) == 143
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert last_line.startswith("a2video: SIGTERM: stopped after step ")
    assert last_line.endswith(f"saved {parts / 'last.ckpt'}; go on by the same command with --ckpt_path last")
    assert status_of([*command, *options_then, "--ckpt_path=last"]) == 0
    assert_same_end(parts, whole)
    assert rows(parts) == rows(whole)


def test_ctrl_c_saves_too(
    write_config: Writer, tmp_path: Path, signal_at: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    signal_at("training_step", 3, signal.SIGINT)
    assert status_of(fit_command(write_config(tmp_path))) == 130
    assert "a2video: Ctrl-C: stopped after step 3 (epoch 0, 3 batches of it done)" in capsys.readouterr().err
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 3
    assert signal.getsignal(signal.SIGINT) in (handler, signal.default_int_handler)


def test_sigkill_at_random_moments(write_config: Writer, tmp_path: Path) -> None:
    config, rng = write_config(tmp_path), random.Random(0)
    options = ["--trainer.max_epochs=12", "--checkpoints.every_n_steps=3", "--trainer.limit_val_batches=1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert status_of(fit_command(config, *options, f"--trainer.default_root_dir={whole}")) == 0
    command = fit_command(config, *options, f"--trainer.default_root_dir={parts}", "--ckpt_path=last")
    steps = max(1, 64 // NUM_KILLS)  # 64 of 96 in all: none has ended by then
    for _ in range(NUM_KILLS):
        kill = [
            f"--model.network.signal_at={rng.randint(1, steps)}",
            "--model.network.signal_name=SIGKILL",
            f"--model.network.signal_delay={rng.uniform(0, 0.1)}",
        ]
        process = in_processes([*command, *kill])
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    assert status_of_processes(command) == 0
    assert_same_end(parts, whole)
    assert len(rows(whole).keys() - rows(parts).keys()) <= NUM_KILLS  # Lightning writes a row after our hook
    assert not rows(parts).keys() - rows(whole).keys()
    assert sorted(path.name for path in parts.iterdir() if "ckpt" in path.name) == [
        "best.ckpt",
        "last-1.ckpt",
        "last.ckpt",
    ]


def test_one_of_two_ranks_gets_the_signal_and_another_step_a_loss_that_is_none(
    write_config: Writer, tmp_path: Path
) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--model.network.rank=1", "--model.max_bad_losses=1"]
    command = fit_command(write_config(tmp_path), *two, "--model.network.nan_at=2")
    process = in_processes([*command, "--model.network.signal_at=3"])
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 143, output
    assert output.count("SIGTERM: stopped after step 3 (epoch 0, 3 batches of it done)") == 1
    checkpoint = torch.load(tmp_path / "out/last.ckpt", weights_only=True)
    states = [rank["random"]["torch"] for rank in checkpoint["a2video_position"]["ranks"]]
    assert len(states) == 2
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    if NUM_KILLS > 2:  # slow
        again = [option for option in command if "nan_at" not in option]
        assert status_of_processes([*again, "--ckpt_path=last"]) == 0
        whole = tmp_path / "whole"
        assert status_of_processes([*command, f"--trainer.default_root_dir={whole}"]) == 0
        assert_same_end(tmp_path / "out", whole)


def test_slurm_runs_a_job_again_from_where_it_was(
    write_config: Writer, tmp_path: Path, signal_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin/scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> '{tmp_path}/asked'\nkill -TERM $PPID\n")  # as SLURM does in time
    scontrol.chmod(0o755)
    for name, value in {
        "NTASKS": "1",
        "JOB_ID": "12",
        "JOB_NAME": "mine",
        "PROCID": "0",
        "LOCALID": "0",
        "NODEID": "0",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    command = fit_command(write_config(tmp_path))
    signal_at("training_step", 5, signal.SIGUSR1)
    assert status_of(command) == 143
    assert (tmp_path / "asked").read_text() == "requeue 12\n"
    assert "exists: choose another" in fails(capsys, *command)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert status_of(command) == 0
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 16


def test_sigusr1_saves_and_goes_on_and_damage_is_survived(
    write_config: Writer, tmp_path: Path, signal_at: Callable[..., None], small_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = fit_command(write_config(tmp_path), "--trainer.max_epochs=1")
    out = tmp_path / "out"
    signal_at("training_step", 5, signal.SIGUSR1)
    assert status_of(command) == 0
    end = torch.load(out / "last.ckpt", weights_only=True)
    assert end["global_step"] == 8
    assert torch.load(out / "last-1.ckpt", weights_only=True)["global_step"] == 5
    (out / "best.ckpt").unlink()
    (out / "last.ckpt").write_bytes((out / "last.ckpt").read_bytes()[:-1000])
    (out / ".last.ckpt.77.part").write_bytes(b"half")
    assert "middle of epoch 0, trained with data.batch_size times devices = 1, but here it is 2" in fails(
        capsys, *command, "--data.batch_size=2", "--ckpt_path=last"
    )
    header, *videos = (small_data / "train.csv").read_text("utf-8").splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([header, *videos[::-1]]) + "\n", "utf-8")
    options = [f"--data.train_list={other}", f"--data.root={small_data}", "--ckpt_path=last"]
    assert "trained with digest of the videos and labels of data.train_list = " in fails(capsys, *command, *options)
    assert status_of([*command, "--ckpt_path=last"]) == 0
    assert is_same(torch.load(out / "last.ckpt", weights_only=True)["state_dict"], end["state_dict"])
    assert sorted(p.name for p in out.iterdir() if "ckpt" in p.name) == [
        "best.ckpt", "last-1.ckpt", "last.ckpt", "last.ckpt.damaged",
    ]  # fmt: skip
    assert torch.load(out / "last-1.ckpt", weights_only=True)["global_step"] == 5
    assert "trained with 1 clips an update, but here they are 2" in fails(
        capsys, *command, "--trainer.max_epochs=2", "--data.batch_size=2", "--ckpt_path=last"
    )


def test_last_starts_a_run_and_refuses_one_of_which_nothing_is_left(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = fit_command(write_config(tmp_path), "--trainer.max_steps=2", "--data.val_list=null", "--ckpt_path=last")
    assert status_of(command) == 0
    for path in (tmp_path / "out").glob("*.ckpt"):
        path.write_bytes(b"")
    assert "checkpoints in" in fails(capsys, *command)
    assert "checkpoints.every_n_steps must be at least 1, got 0" in fails(
        capsys, *command[:-1], "--overwrite=true", "--checkpoints.every_n_steps=0"
    )
