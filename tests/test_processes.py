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
from a2video.errors import InputError


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
