"""What is refused or said where a run has several processes; what they compute is in test_ranks.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import fails

from a2video import processes
from a2video.data.transforms import Preprocessing
from a2video.datamodule import VideoDataModule
from a2video.doctor_trial import configured
from a2video.errors import InputError
from a2video.machine import this_machine


def test_a_trainer_for_another_number_of_processes(
    write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("JOB_ID", "PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    fit = ["fit", "--config", str(write_config(tmp_path))]
    assert "Use `--ntasks-per-node=2` instead" in fails(capsys, *fit)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    message = "trainer.devices (1) times trainer.num_nodes (1) must be the number of processes that torchrun or srun"
    assert message in fails(capsys, *fit)


def test_batch_norm_is_shared_on_gpus_only(
    write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(write_config(tmp_path)), "--trainer.sync_batchnorm=true", "--trainer.devices=2"]
    said = "trainer.sync_batchnorm needs GPUs, but the 2 processes of this run compute on CPUs: leave it out"
    assert said in fails(capsys, "fit", *options, "--trainer.strategy=ddp")
    plan = configured(options, str(tmp_path)).plan(this_machine(tmp_path))
    assert (plan.on_gpu, plan.shares_statistics) == (False, True)
    assert (
        not configured([*options, "--trainer.devices=1"], str(tmp_path)).plan(this_machine(tmp_path)).shares_statistics
    )


def test_more_ranks_than_videos(small_data: Path) -> None:
    data = VideoDataModule(Preprocessing(), test_list=f"{small_data}/test.csv")
    data.trainer = SimpleNamespace(world_size=6)
    with pytest.raises(InputError, match=r"test.csv has 5 videos for 6 devices: use fewer devices"):
        data.setup("test")


def test_who_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process at once; another one after a while, unless the first has ended."""
    waited: list[float] = []
    monkeypatch.setattr(processes.time, "sleep", waited.append)
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert processes.speaker() == ""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.speaker() == ""
    assert waited == []
    monkeypatch.setenv("RANK", "3")
    assert processes.speaker() == "rank 3: "
    parents = iter([17, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    assert processes.speaker() is None
    assert waited == [10.0, 10.0]
