"""Averages of the weights over training, to validate, save and test instead of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from a2video.bad_losses import BadLosses
from a2video.errors import InputError

TRAINING_KEY = "a2video_training_weights"  # of a checkpoint whose "state_dict" has the averages


def decay_of(update: int, decay: float, warmup: bool) -> float:
    """What is left of the averages in an update, counted from 0: with warm-up 1/10, 2/11, 3/12, ... until `decay`."""
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


class Ema(pl.Callback):
    """Keeps exponential moving averages of weights and of batch norm statistics; counters are copied.

    Updated after each step of the optimizer: average = d * average + (1 - d) * weight, from the weights that training
    starts with. Validation uses the averages. In each checkpoint "state_dict" has the averages, so that test, predict,
    classify and model.pretrained take them; the weights to go on with are beside them under TRAINING_KEY.

    Args:
        decay: d, in [0, 1).
        warmup: in update n, counted from 0, d is at most (1 + n) / (10 + n), so that first weights are soon forgotten.
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay of a2video.ema.Ema must be in [0, 1), got {decay}")
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self._last_step = 0  # of the trainer that was averaged
        self._averages: dict[str, Tensor] = {}  # while they are swapped in, the weights in training
        self._swapped_in = False

    @staticmethod
    def of(trainer: pl.Trainer) -> Ema | None:
        """The trainer's callback of this kind, if any."""
        return next((callback for callback in trainer.callbacks if isinstance(callback, Ema)), None)  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the averages, or goes on with those of a checkpoint."""
        weights = _tensors(pl_module)
        self._averages = {
            name: self._averages.get(name, weight).detach().to(weight.device, copy=True)
            for name, weight in weights.items()
        }

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Counts from where a run is resumed."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the averages if the optimizer has made a step that is not left out."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if BadLosses.leaves_out(trainer):
            return
        decay = decay_of(self.num_updates, self.decay, self.warmup)
        self.num_updates += 1
        averages, weights = [], []
        for name, weight in _tensors(pl_module).items():
            if weight.is_floating_point():
                averages.append(self._averages[name])
                weights.append(weight)
            else:
                self._averages[name].copy_(weight)
        get_ema_multi_avg_fn(decay)(averages, weights, None)  # type: ignore[no-untyped-call]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation uses the averages."""
        if trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on with the weights."""
        if trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the averages in the module."""
        self._swap(pl_module)
        self._averages, self._swapped_in, self.num_updates = {}, False, 0

    @contextmanager
    def averages_in(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """Within it the module has the averages, and what changes in it changes in them."""
        if self._swapped_in:
            yield
            return
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: pl.LightningModule) -> None:
        for name, weight in _tensors(pl_module).items():
            before = weight.clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(before)
        self._swapped_in = not self._swapped_in

    def state_dict(self) -> dict[str, Any]:
        """How many updates there were."""
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See state_dict."""
        self.num_updates = state_dict["num_updates"]

    def put_into(self, checkpoint: dict[str, Any], with_training: bool) -> None:
        """Replaces a checkpoint's "state_dict" by the averages; called by the module, also for weights alone."""
        if not self._averages:  # after fit: the module itself has them
            return
        weights = checkpoint["state_dict"]
        averages, training = (weights, self._averages) if self._swapped_in else (self._averages, weights)
        checkpoint["state_dict"] = {**weights, **averages}
        if with_training:
            checkpoint[TRAINING_KEY] = {**weights, **training}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes both kinds of weights of a run that is resumed; one without averages starts them."""
        if trainer.state.fn == "fit" and TRAINING_KEY in checkpoint:
            self._averages = dict(checkpoint["state_dict"])
            pl_module.load_state_dict(checkpoint[TRAINING_KEY])


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
