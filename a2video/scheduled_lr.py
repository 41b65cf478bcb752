"""A schedule at work: it sets the learning rates of an optimizer during a run of Lightning's trainer; their log."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from a2video.errors import InputError
from a2video.schedules import Run, Schedule


class ScheduledLR(torch.optim.lr_scheduler.LambdaLR):
    """Stepped after each update; what it has monitored is part of its state, and so of checkpoints."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule, run: Run) -> None:
        self.monitored: list[float] = []
        super().__init__(optimizer, lambda step: schedule.factor(step, run, self.monitored))

    def observe(self, value: float) -> None:
        """Takes the monitored value of a finished epoch; the next update follows it already."""
        self.monitored.append(value)
        factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
        self._last_lr = [lr * factor for lr, factor in zip(self.base_lrs, factors, strict=True)]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


class LearningRates(pl.Callback):
    """Logs the rate of each update: `lr`, and for parts of the network with 0.2 times it, say, `lr_x0.2`."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Where Lightning will log this step."""
        if trainer._logger_connector.should_update_logs:
            for optimizer in trainer.optimizers:
                pl_module.log_dict(learning_rates(optimizer), batch_size=1)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rates of now by the names that they are logged with."""
    base = optimizer.defaults.get("lr")
    rates = {}
    for group in optimizer.param_groups:
        factor = group.get("initial_lr", group["lr"]) / base if base else 1.0
        rates["lr" if round(factor, 6) == 1 else f"lr_x{factor:g}"] = float(group["lr"])
    return rates


def run_of(trainer: pl.Trainer, batch_size: int) -> Run:
    """How long the trainer's run is, with batches of `batch_size` on each device."""
    trainer.fit_loop.setup_data()
    num_batches, accumulated = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    return Run(
        num_steps=trainer.estimated_stepping_batches,
        steps_per_epoch=max(1, -(-num_batches // accumulated)),
        samples_per_step=batch_size * trainer.world_size * min(accumulated, num_batches),
        samples_per_epoch=batch_size * trainer.world_size * num_batches,
    )


def check_warmup(schedule: Schedule, run: Run) -> None:
    """Advises against a warm-up that takes much of the run."""
    if schedule.warmup_steps > 0.2 * run.num_steps:
        rank_zero_info(
            f"Warm-up takes {schedule.warmup_steps} of {run.num_steps} steps: consider fewer "
            "model.schedule.init_args.warmup_steps"
        )


def monitored_value(trainer: pl.Trainer, monitor: str) -> float:
    """The metric's value of the epoch that ends, that of the first rank on all of them.

    Raises:
        InputError: nothing of that name is logged.
    """
    metrics = trainer.callback_metrics
    if monitor not in metrics:
        raise InputError(f"model.schedule.monitor: no metric {monitor!r}, there are {', '.join(sorted(metrics))}")
    value: float = trainer.strategy.broadcast(float(metrics[monitor]))
    return value
