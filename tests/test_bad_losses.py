from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import fails
from test_interruption import fit_command, is_same, status_of

from a2video.checkpoints import Checkpoints
from a2video.ema import TRAINING_KEY

Writer = Callable[[Path], Path]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The weights, buffers and optimiser's state after each batch."""
    found: list[Any] = []
    original = Checkpoints.on_train_batch_end

    def keep(self: Checkpoints, trainer: Any, pl_module: Any, *rest: Any) -> None:
        found.append(deepcopy((pl_module.state_dict(), trainer.optimizers[0].state_dict()["state"])))
        original(self, trainer, pl_module, *rest)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", keep)
    return found


def test_a_loss_that_is_none_names_videos_and_checkpoint(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = fit_command(write_config(tmp_path), "--model.network.nan_at=4", "--checkpoints.every_n_steps=2")
    message = fails(capsys, *command)
    assert message.startswith("a2video: error: the training loss is nan at step 3, with the videos ")
    assert f".mp4: go on from {tmp_path / 'out/last.ckpt'}, the last checkpoint whose weights are finite" in message
    assert "lower model.optimizer.lr (the rate was 0.457867), give" in message
    message = fails(capsys, *command[:-2], "--model.network.nan_at=1", "--data.batch_size=6", "--overwrite=true")
    assert f"mp4 and 2 more (see {tmp_path / 'out/bad_losses.csv'}): start anew, and" in message
    rows = list(csv.DictReader((tmp_path / "out/bad_losses.csv").read_text("utf-8").splitlines()))
    assert [(row["loss"], row["rank"], row["epoch"], row["step"]) for row in rows] == [
        ("nan", "0", "0", "3"), *[("nan", "0", "0", "0")] * 6,
    ]  # fmt: skip
    assert all(Path(row["path"]).is_file() for row in rows)


def test_a_step_left_out_changes_nothing(
    write_config: Writer, tmp_path: Path, states: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = fit_command(write_config(tmp_path), "--model.network.nan_at=3", "--model.max_bad_losses=1")
    assert status_of(command) == 0
    assert len(states) == 16
    assert [is_same(before, after) for before, after in itertools.pairwise(states)] == [
        number == 2 for number in range(1, 16)
    ]
    assert f"Left out 1 of 16 steps, whose loss was not finite: see {tmp_path / 'out/bad_losses.csv'}" in (
        capsys.readouterr().out
    )
    again = [*command, "--ckpt_path=last", "--trainer.max_epochs=3"]
    message = fails(capsys, *again)  # the count goes on
    assert "loss is nan at step 18 after 1 steps that were left out, with" in message


def test_a_step_of_several_batches_is_left_out_whole(write_config: Writer, tmp_path: Path, states: list[Any]) -> None:
    options = ["--model.network.nan_at=2", "--model.max_bad_losses=1", "--trainer.accumulate_grad_batches=3"]
    assert status_of(fit_command(write_config(tmp_path), *options, "--trainer.max_epochs=1")) == 0
    (first, _), (second, _), (third, _) = states[:3]
    assert not first["network.1.running_mean"].equal(torch.zeros(4))
    for state in (second, third):  # the buffers are those of before its first batch
        assert state["network.1.running_mean"].equal(torch.zeros(4))
        assert state["network.1.num_batches_tracked"] == 0
    weights = [
        {name: weight for name, weight in state.items() if "running" not in name and "num_batches" not in name}
        for state, _ in states
    ]
    assert [is_same(before, after) for before, after in itertools.pairwise(weights)] == [
        True, True, True, True, False, True, False,
    ]  # fmt: skip
    assert all(weight.isfinite().all() for weight in states[-1][0].values())


def test_averages_know_nothing_of_a_step_left_out(write_config: Writer, tmp_path: Path) -> None:
    command = fit_command(write_config(tmp_path), "--model.max_bad_losses=1", "--trainer.max_epochs=1")
    command += ["--trainer.callbacks+=a2video.ema.Ema", "--data.val_list=null", "--model.schedule=null"]
    assert status_of([*command, "--trainer.limit_train_batches=3", "--model.network.nan_at=3"]) == 0
    left_out = torch.load(tmp_path / "out/last.ckpt", weights_only=True)
    assert status_of([*command, "--trainer.limit_train_batches=2", "--overwrite=true"]) == 0
    ended_before = torch.load(tmp_path / "out/last.ckpt", weights_only=True)
    assert left_out["callbacks"]["Ema"] == ended_before["callbacks"]["Ema"] == {"num_updates": 2}
    for key in ("state_dict", TRAINING_KEY):
        assert is_same(left_out[key], ended_before[key])


def test_wrong_number(write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = fit_command(write_config(tmp_path), "--model.max_bad_losses=-1")
    assert "model.max_bad_losses must be at least 0, got -1" in fails(capsys, *command)
