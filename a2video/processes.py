"""Several processes of one run: whether they are as many as expected, and which of them says what went wrong."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from a2video.data.limits import die_with_parent
from a2video.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

LAUNCHER = "A2VIDEO_LAUNCHER"  # the variable with the number of the process that starts others
SECONDS_TO_END = 10.0  # within which a launcher ends the others when the first process has failed


def end_with_first() -> None:
    """Lets the processes that Lightning starts end with the first one, that they never wait for one that was killed.

    Called by each of them, and by the first one before it starts the others.
    """
    if sys.platform != "linux":
        return
    is_of_another = "RANK" in os.environ or "SLURM_PROCID" in os.environ  # torchrun or srun, who see to it themselves
    if LAUNCHER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0" and not is_of_another:
        die_with_parent()
        if os.environ[LAUNCHER] != str(os.getppid()):  # which has ended already
            sys.exit(1)
    os.environ[LAUNCHER] = str(os.getpid())


def check_processes(trainer: Trainer, sync_batchnorm: bool) -> None:
    """Refuses a trainer for another number of processes than a launcher has started, and what torch has on GPUs only.

    Raises:
        InputError: the processes would wait for each other forever, or each train alone in the same folder, or they are
            to share statistics of batch norm on a CPU.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if environment.creates_processes_externally and environment.world_size() != trainer.num_devices * trainer.num_nodes:
        raise InputError(
            f"trainer.devices ({trainer.num_devices}) times trainer.num_nodes ({trainer.num_nodes}) must be the number "
            f"of processes that torchrun or srun starts, found {environment.world_size()} (for a single process within "
            "a larger SLURM job: srun --ntasks 1)"
        )
    if sync_batchnorm and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        raise InputError(
            f"trainer.sync_batchnorm needs GPUs, but the {trainer.world_size} processes of this run compute on CPUs: "
            "leave it out"
        )


def speaker() -> str | None:
    """What an error message of this process begins with, or None where the first process has said it.

    A process that is not the first waits before it speaks: mostly the first one has the same error and ends, and then
    launchers end the others.
    """
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))  # torchrun, srun, Lightning
    rank = next((rank for rank in ranks if rank), "0")
    if rank == "0":
        return ""
    parent = os.getppid()
    time.sleep(SECONDS_TO_END)
    return f"rank {rank}: " if os.getppid() == parent else None  # the first process is the parent, or torchrun
