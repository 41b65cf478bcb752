"""A job that SLURM is about to end: which signal says so, and how the job gets into the queue again."""

from __future__ import annotations

import os
import signal
import subprocess

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info


def _slurm(trainer: pl.Trainer) -> SLURMEnvironment | None:
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) and environment.auto_requeue else None


def save_signal(trainer: pl.Trainer) -> signal.Signals:
    """The signal that asks for a checkpoint: SIGUSR1, unless SLURMEnvironment names another."""
    environment = _slurm(trainer)
    return environment.requeue_signal or signal.SIGUSR1 if environment else signal.SIGUSR1


def requeue(trainer: pl.Trainer) -> None:
    """Asks SLURM, where we are in one of its jobs, to run the job again; SLURM then ends this run by SIGTERM."""
    if _slurm(trainer) is None or not trainer.is_global_zero:
        return
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        problem = result.stderr.strip() if result.returncode else ""
    except OSError as error:
        problem = str(error)
    rank_zero_info(f"SLURM job {job} " + (f"could not be requeued: {problem}" if problem else "is requeued"))
