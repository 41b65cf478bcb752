"""A schedule at work: it sets the learning rates of an optimizer during a run of Lightning's trainer; their log."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from a2video.errors import InputError
from a2video.schedules import Run, Schedule

MONITORED = ("train/epoch_loss", "train/top1", "train/top5", "val/loss", "val/top1", "val/top5")  # what epochs log


class ScheduledLR(torch.optim.lr_scheduler.LambdaLR):
    """Stepped after each update; what it has monitored is part of its state, and so of checkpoints.

    Args:
        optimizer: whose groups have the base learning rates.
        schedule: constant when None.
        run: its lr_factor comes on top.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule | None, run: Run) -> None:
        self.monitored: list[float] = []
        self.validated: dict[str, float] = {}  # what this epoch's last validation has found

        def factor(step: int) -> float:
            return run.lr_factor * (1.0 if schedule is None else schedule.factor(step, run, self.monitored))

        super().__init__(optimizer, factor)

    def observe(self, trainer: pl.Trainer, monitor: str) -> None:
        """Takes the metric's value of the epoch that ends, if it has one; the next update follows it already."""
        metrics = trainer.callback_metrics  # all ranks work them out together: the progress bar of the first one waits
        values = self.validated if monitor.startswith("val/") else metrics
        if monitor in values:
            value: float = trainer.strategy.broadcast(float(values[monitor]))
            self.monitored.append(value)
            self.go_to(self.last_epoch)
        self.validated = {}

    def go_to(self, step: int) -> None:
        """The next update is `step`, counted from 0, at the base learning rates that the optimizer's groups have."""
        self.last_epoch = step
        self.base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]
        factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
        self._last_lr = [lr * factor for lr, factor in zip(self.base_lrs, factors, strict=True)]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


class LearningRates(pl.Callback):
    """Logs the rate of each update: `lr`, and for parts of the network with 0.2 times it, say, `lr_x0.2`."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A training that is resumed follows the schedule that is configured now, at the step where it stands."""
        for scheduler in _scheduled(trainer):
            scheduler.go_to(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes for the schedule what was found, before checkpoints are written."""
        if not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
            for scheduler in _scheduled(trainer):
                scheduler.validated = found

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Where Lightning will log this step."""
        if trainer._logger_connector.should_update_logs:
            for optimizer in trainer.optimizers:
                pl_module.log_dict(learning_rates(optimizer), batch_size=1)


def _scheduled(trainer: pl.Trainer) -> list[ScheduledLR]:
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    return [scheduler for scheduler in schedulers if isinstance(scheduler, ScheduledLR)]


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rates of now by the names that they are logged with."""
    base = optimizer.defaults.get("lr")
    rates = {}
    for group in optimizer.param_groups:
        factor = group.get("initial_lr", group["lr"]) / base if base else 1.0
        rates["lr" if round(factor, 6) == 1 else f"lr_x{factor:g}"] = float(group["lr"])
    return rates


def run_of(trainer: pl.Trainer, batch_size: int, base_batch_size: int | None) -> Run:
    """How long the trainer's run is, with batches of `batch_size` on each device; `base_batch_size` as in Run.

    The learning rate's factor counts accumulate_grad_batches also where an epoch ends with fewer: Lightning divides by
    it there too, so that a video moves the weights as much in a small update as in a full one.
    """
    trainer.fit_loop.setup_data()
    num_batches, accumulated = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    return Run(
        num_steps=trainer.estimated_stepping_batches,
        steps_per_epoch=max(1, -(-num_batches // accumulated)),
        samples_per_step=batch_size * trainer.world_size * min(accumulated, num_batches),
        samples_per_epoch=batch_size * trainer.world_size * num_batches,
        base_batch_size=base_batch_size,
        lr_factor=batch_size * trainer.world_size * accumulated / base_batch_size if base_batch_size else 1.0,
    )


def say_linear_rule(trainer: pl.Trainer, batch_size: int, lr: float, run: Run) -> None:
    """Prints what the linear rule makes of the base learning rate `lr`."""
    if run.base_batch_size is None or not trainer.is_global_zero:
        return
    counts = (batch_size, "clip"), (trainer.world_size, "device"), (trainer.accumulate_grad_batches, "batch")
    product = " x ".join(f"{n} {word}{'' if n == 1 else 'es' if word == 'batch' else 's'}" for n, word in counts)
    print(
        f"Learning rate {lr:g} for {run.base_batch_size} clips an update -> {lr * run.lr_factor:g} for "
        f"{math.prod(n for n, _ in counts)} ({product})"
    )


def check_monitor(trainer: pl.Trainer, monitor: str, has_val_list: bool) -> None:
    """Refuses a metric that no epoch will have.

    Raises:
        InputError: nothing of that name is logged, or nothing is validated.
    """
    if monitor not in MONITORED:
        raise InputError(f"model.schedule.monitor: no metric {monitor!r}, there are {', '.join(MONITORED)}")
    if monitor.startswith("val/") and not (has_val_list and trainer.limit_val_batches):
        raise InputError(
            f"model.schedule.monitor: {monitor} needs validation: give data.val_list and let trainer.limit_val_batches "
            "not be 0, or monitor a metric of training, such as train/top1"
        )


def check_warmup(schedule: Schedule, run: Run) -> None:
    """Advises against a warm-up that takes much of the run; both are counted in updates, not in batches."""
    if math.isinf(run.num_steps):
        return
    num_steps = run.position(int(run.num_steps))
    if schedule.warmup_steps > 0.2 * num_steps:
        counted = "" if run.base_batch_size is None else f" of {run.base_batch_size} clips"
        rank_zero_info(
            f"Warm-up takes {schedule.warmup_steps} of {num_steps:.0f} updates{counted}: consider fewer "
            "model.schedule.init_args.warmup_steps"
        )
