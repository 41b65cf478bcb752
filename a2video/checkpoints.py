"""Saves a training so that nothing is lost when it is interrupted: at epochs, at steps, and when a signal asks."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from a2video.checkpoint_files import LAST, remove_parts, remove_run, set_aside
from a2video.data.dataset import Batch
from a2video.errors import InputError, Interrupted
from a2video.position import (
    KEY,
    add_epoch_means,
    epoch_means,
    log_epoch_means,
    num_batches_done,
    num_epochs_done,
    position,
    random_state,
    set_random_state,
    take_up,
)
from a2video.slurm import requeue, save_signal

if TYPE_CHECKING:
    from a2video.datamodule import VideoDataModule

ENDS = (signal.SIGINT, signal.SIGTERM)  # signals that end the run, the weightier last
BATCH, ACCUMULATED = "data.batch_size times devices", "trainer.accumulate_grad_batches"


class Checkpoints(Checkpoint):
    """Keeps last.ckpt in trainer.default_root_dir: a training resumed from it ends as if it had not been interrupted.

    It is written after each epoch, at the end of fit and every `every_n_steps` steps. SIGTERM and Ctrl-C write it after
    the step that is under way and end the process, a second Ctrl-C at once; SIGUSR1 writes it and goes on, and under
    SLURM puts the job into the queue again, unless Lightning's SLURMEnvironment(auto_requeue=False) is configured. One
    rank that gets the signal is enough. The network's validation is broken off for it, and starts anew when the
    training is resumed.

    Args:
        every_n_steps: optimiser steps between checkpoints within an epoch; only at its end when None.
        num_last: how many checkpoints are kept, last.ckpt, last-1.ckpt, ...: should a disk damage the newest, the
            training goes on from the one before.
    """

    def __init__(self, every_n_steps: int | None = None, num_last: int = 2) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(f"checkpoints.every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.num_last = num_last
        self.path = Path(LAST)
        self._signal = 0  # that this rank got and no rank has answered
        self._handler_before: Any = None  # of SIGINT
        self._resumed: dict[str, Any] | None = None  # the position in the checkpoint that was loaded
        self._means: dict[str, dict[str, Any]] = {}  # of the batches before the resumption
        self._saved: tuple[Any, ...] | None = None  # what last.ckpt holds
        self._validated = 0  # batches of all epochs after which the last validation ended
        self._before_validation: dict[str, Any] | None = None  # random state, while one runs
        self._num_common = 0  # batches of this validation that every rank has

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The folder is known from here on."""
        self.path = Path(trainer.default_root_dir) / LAST

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the position, and what each rank has of its own."""
        here = position(trainer, self._validated)
        mine = {
            "random": self._before_validation or random_state(trainer.strategy.root_device),
            "means": epoch_means(trainer) if here["batch"] else {},
        }
        ranks: list[Any] = [mine]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, mine)
        metrics = {name: value.cpu() for name, value in trainer._logger_connector._callback_metrics.items()}
        checkpoint[KEY] = {**here, "ranks": ranks, "metrics": metrics, "order": _order(trainer)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Brings Lightning's loops to the position.

        Raises:
            InputError: it is in the middle of an epoch whose batches would be others here, or an update would take
                another number of clips than before.
        """
        self._resumed = checkpoint.get(KEY)
        if self._resumed is None:  # of an older version of ours: Lightning does what it can
            return
        take_up(checkpoint)
        if self._resumed["batch"]:
            for name, here in _order(trainer).items():
                there = self._resumed["order"].get(name, here)  # older checkpoints have no digest
                if there != here:
                    raise InputError(
                        f"the checkpoint is from the middle of epoch {self._resumed['epoch']}, trained with {name} = "
                        f"{there}, but here it is {here}: finish that epoch as it was begun, or go on from a "
                        "checkpoint of an epoch's end"
                    )
        there, here = (_clips_an_update(order) for order in (self._resumed["order"], _order(trainer)))
        if there != here:
            raise InputError(
                f"the checkpoint was trained with {there} clips an update, but here they are {here}, and "
                "schedules count updates: let data.batch_size x devices x trainer.accumulate_grad_batches be the same, "
                "or start a new training from its weights with --model.pretrained"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clears away what was left half written, and the run that this one replaces."""
        resumed = trainer.ckpt_path and Path(trainer.ckpt_path).resolve()
        if trainer.is_global_zero:
            remove_parts(self.path.parent)
            if not resumed:
                remove_run(self.path.parent)
            elif resumed.parent == self.path.parent.resolve() and resumed.name != LAST:
                set_aside(self.path)
        trainer.strategy.barrier()

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has just put its own handlers in place."""
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the loader, the random generators and the means of the epoch to where the checkpoint was."""
        self._listen(trainer)
        here = self._resumed
        if here is None:
            return
        loop = trainer.fit_loop
        if here["validation_done"]:
            self._validated = num_batches_done(trainer)
        trainer._logger_connector._callback_metrics.update(
            here["metrics"]
        )  # the last validation's, for other callbacks
        _skip(trainer, here["batch"])
        if not here["batch"]:
            loop.epoch_loop.restarting = False  # with max_steps Lightning takes a new epoch for the rest of one
        if len(here["ranks"]) == trainer.world_size:
            mine = here["ranks"][trainer.global_rank]
            set_random_state(mine["random"], trainer.strategy.root_device)
            self._means = mine["means"]
            if here["is_last_batch"]:
                log_epoch_means(trainer, self._means)
        if trainer.ckpt_path and Path(trainer.ckpt_path).resolve() == self.path.resolve():
            self._saved = self._place(trainer)
        self._resumed = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Saves where it is due."""
        add_epoch_means(trainer, self._means)
        is_end = trainer.global_step == trainer.max_steps  # which on_train_end saves
        if trainer.fit_loop._should_accumulate() or is_end:
            return  # half a step cannot be saved
        number = self._asked(trainer)
        if number or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer)
        if number in ENDS:  # what Lightning would log after this hook
            trainer._logger_connector.on_batch_end()
            trainer._logger_connector.update_train_step_metrics()
        self._answer(trainer, number)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the state from which a validation that is broken off starts anew."""
        if trainer.sanity_checking:
            return
        self._before_validation = random_state(trainer.strategy.root_device)
        num_batches = torch.tensor(int(sum(trainer.num_val_batches)), device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(num_batches, torch.distributed.ReduceOp.MIN)
        self._num_common = int(num_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Saves if a signal asks for it."""
        if trainer.sanity_checking or batch_idx >= self._num_common or trainer.fit_loop._should_accumulate():
            return
        if number := self._asked(trainer):
            self._save(trainer)
            self._answer(trainer, number)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a checkpoint need not repeat the validation."""
        if not trainer.sanity_checking:
            self._validated = num_batches_done(trainer)
            self._before_validation = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the epoch that has ended: at its end the learning rate may still change."""
        _skip(trainer, 0)  # a resumed epoch of which no batch was left has not begun its pass
        if num_epochs_done(trainer) > 0:
            number = self._asked(trainer)
            self._save(trainer)
            self._answer(trainer, number)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch ends as any other: Lightning would not look at metrics in one that was resumed."""
        trainer.fit_loop._restarting = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the end."""
        self._save(trainer)

    def _place(self, trainer: pl.Trainer) -> tuple[Any, ...]:
        here = position(trainer, self._validated)
        return trainer.global_step, here["epoch"], here["batch"], here["validation_done"]

    def _save(self, trainer: pl.Trainer) -> None:
        place = self._place(trainer)
        if place != self._saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = place

    def _listen(self, trainer: pl.Trainer) -> None:
        """Takes the signals over from Lightning, whose handlers save in the middle of a step or wait for all ranks."""
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR1"):
            if (handler := signal.getsignal(signal.SIGINT)) != self._note:
                self._handler_before = handler
            for number in (*ENDS, save_signal(trainer)):
                if number != signal.SIGINT or self._handler_before != signal.SIG_IGN:  # as of a job in the background
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a second one does not wait for the step
        self._signal = max(self._signal, number, key=_weight)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning gives the other signals back."""
        if threading.current_thread() is threading.main_thread() and self._handler_before is not None:
            signal.signal(signal.SIGINT, self._handler_before)

    def _asked(self, trainer: pl.Trainer) -> int:
        """The weightiest signal that any rank got, or 0; the same on all ranks."""
        number = self._signal
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            weight = torch.tensor(_weight(number), device=device)
            torch.distributed.all_reduce(weight, torch.distributed.ReduceOp.MAX)
            number = int((0, save_signal(trainer), *ENDS)[int(weight)])
        if self._signal == number:  # one that has come meanwhile waits
            self._signal = 0
        return number

    def _answer(self, trainer: pl.Trainer, number: int) -> None:
        """Ends the run or goes on with it, after the checkpoint was written.

        Raises:
            Interrupted: the signal was SIGTERM or Ctrl-C.
        """
        if number == 0:
            return
        here = position(trainer, self._validated)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        where = f"after step {trainer.global_step} (epoch {here['epoch']}, {here['batch']} batches of it done)"
        if number not in ENDS:
            rank_zero_info(f"{name}: saved {self.path} {where}, going on")
            requeue(trainer)
            return
        environment = trainer.strategy.cluster_environment if trainer.world_size > 1 else None  # type: ignore[attr-defined]
        is_child = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        raise Interrupted(
            f"{name}: stopped {where} and saved {self.path}; go on by the same command with --ckpt_path last"
            if trainer.is_global_zero
            else "",
            0 if is_child else 128 + number,  # Lightning kills the main process when a child of it fails
        )


def _weight(number: int) -> int:
    """0: no signal, 1: it asks for a checkpoint; others end the run."""
    return 2 + ENDS.index(number) if number in ENDS else int(number > 0)


def _skip(trainer: pl.Trainer, num_batches: int) -> None:
    for loader in cast(Any, trainer.fit_loop._combined_loader).flattened:
        loader.load_state_dict({"num_batches": num_batches})


def _order(trainer: pl.Trainer) -> dict[str, Any]:
    """What the order of the training videos and their distribution over batches depend on."""
    data = cast("VideoDataModule", trainer.datamodule)  # type: ignore[attr-defined]
    return {
        "data.seed": data.seed,
        "videos in data.train_list": len(data.videos["train"]),
        "digest of the videos and labels of data.train_list": data.videos["train"].digest,
        BATCH: data.batch_size * trainer.world_size,
        ACCUMULATED: trainer.accumulate_grad_batches,
    }


def _clips_an_update(order: dict[str, Any]) -> int:
    return int(order[BATCH] * order[ACCUMULATED])
