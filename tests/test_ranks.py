"""What several ranks compute is what one computes, in real processes on real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from ranks import recorded

from a2video.cli import main
from a2video.ema import TRAINING_KEY
from a2video.position import KEY

Writer = Callable[[Path], Path]

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def on_two_ranks(command: list[str], launcher: list[str]) -> str:
    """Runs a command in two processes, which must succeed; returns what they printed."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *launcher, "-m", "a2video", *command, *DDP],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout
    return process.stdout


def list_of(folder: Path, small_data: Path, *splits: str, leave_out: int = 0) -> Path:
    """A list of the videos of some splits, without the last ones."""
    rows = [row for split in splits for row in (small_data / f"{split}.csv").read_text("utf-8").splitlines()[1:]]
    path = folder / f"{'_'.join(splits)}.csv"
    rows = rows[: len(rows) - leave_out]
    path.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return path


def fit_command(config: Path, small_data: Path, out: Path, *options: str) -> list[str]:
    """3 epochs of 11 training videos, 5 validation videos."""
    lists = [
        f"--data.root={small_data}",
        f"--data.train_list={list_of(config.parent, small_data, 'train', 'val', leave_out=1)}",
        f"--data.val_list={small_data / 'test.csv'}",
    ]
    record = ["--trainer.callbacks+=ranks.Record", f"--trainer.callbacks.folder={out}"]
    quiet = [f"--trainer.default_root_dir={out}", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=3"]
    return ["fit", "--config", str(config), *lists, *record, *quiet, *options]


def test_two_ranks_with_half_the_batch_train_as_one(write_config: Writer, small_data: Path, tmp_path: Path) -> None:
    """Each step's loss, weights, averages and statistics, in float64, started by torchrun."""
    config = write_config(tmp_path)
    options = [
        "--trainer.precision=64-true", "--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.5",
        "--data.horizontal_flip=0.5", "--data.train_short_side=[24,36]", "--model.label_smoothing=0.1",
        "--trainer.callbacks+=a2video.ema.Ema", "--trainer.callbacks.decay=0.9",
        "--trainer.plugins=ranks.SyncOnCpu",
    ]  # fmt: skip
    two, one = tmp_path / "two", tmp_path / "one"
    on_two_ranks(fit_command(config, small_data, two, *options, "--data.batch_size=1"), TORCHRUN)
    main(fit_command(config, small_data, one, *options[:-1], "--data.batch_size=2"))
    (alone,), ranks = recorded(one, 1), recorded(two, 2)
    means = [sum(losses) / 2 for losses in zip(*(rank["losses"] for rank in ranks), strict=True)]
    assert len(means) == 15  # 11 // 2 in each epoch
    assert means == pytest.approx(alone["losses"], rel=1e-10)
    ours, theirs = (torch.load(out / "last.ckpt", weights_only=True) for out in (two, one))
    assert ours["global_step"] == theirs["global_step"] == 9  # of two batches, two and the epoch's last one
    for weights in ("state_dict", TRAINING_KEY):
        for name, value in theirs[weights].items():
            assert torch.allclose(ours[weights][name], value, rtol=1e-9, atol=1e-12), name
    for validations in zip(alone["validations"], *(rank["validations"] for rank in ranks), strict=True):
        for ours in validations[1:]:
            assert ours == pytest.approx(validations[0], rel=1e-9)  # three videos on one rank, two on the other


def test_validation_on_two_ranks_is_that_of_the_checkpoint(
    write_config: Writer, small_data: Path, tmp_path: Path
) -> None:
    """Without SyncBN each rank has statistics of its own; some validations fall between two updates."""
    config, two, one = write_config(tmp_path), tmp_path / "two", tmp_path / "one"
    options = ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=1"]
    options += ["--data.batch_size=1", "--trainer.max_epochs=1"]
    on_two_ranks(fit_command(config, small_data, two, *options), [])
    first, second = recorded(two, 2)
    assert first["statistics"] == second["statistics"]
    assert first["validations"] == second["validations"]
    states = [rank["random"]["torch"] for rank in torch.load(two / "last.ckpt", weights_only=True)[KEY]["ranks"]]
    assert not torch.equal(*states)  # or both would drop the same features of their clips
    _, *options = fit_command(config, small_data, one)
    main(["validate", *options, f"--ckpt_path={two / 'last.ckpt'}"])
    (alone,) = recorded(one, 1)
    assert first["validations"][-1] == pytest.approx(alone["validations"][-1], rel=1e-6)
