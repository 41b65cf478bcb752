"""Statistics of batch norms computed from training clips before each validation, instead of their running averages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from a2video.ema import Ema
from a2video.errors import InputError

if TYPE_CHECKING:
    from a2video.data.watched_loader import WatchedLoader
    from a2video.datamodule import VideoDataModule


class PreciseBatchNorm(pl.Callback):
    """Before validation and at the end of each epoch, mean and variance of what really arrives at each batch norm.

    Over the values of all clips of `num_batches` batches of every rank: the first ones of this epoch, cut out like
    training clips but without data.augment. Batch norms normalize by each batch as in training, all else is as in
    evaluation, so that no random number is drawn. Frozen batch norms stay. With a2video.ema.Ema they are the
    statistics of the averaged weights. Checkpoints have them.

    Args:
        num_batches: batches of each device; of a shorter epoch all.
    """

    def __init__(self, num_batches: int = 200) -> None:
        if num_batches < 1:
            raise InputError(
                f"num_batches of a2video.precise_bn.PreciseBatchNorm must be at least 1, got {num_batches}"
            )
        self.num_batches = num_batches
        self._last_step = -1
        self._loader: WatchedLoader | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses a network that has nothing to compute.

        Raises:
            InputError: there is no batch norm, or all are frozen.
        """
        self._last_step, self._loader = -1, None
        with _only_norms_training(pl_module) as norms:
            if not norms:
                raise InputError(
                    "a2video.precise_bn.PreciseBatchNorm: the network has no batch norm that is not frozen"
                )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation, and what is saved after it, has the statistics of the weights it looks at."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for what is saved without validation."""
        self._update(trainer, pl_module)

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if self._loader is None:
            self._loader = cast("VideoDataModule", trainer.datamodule).train_dataloader("precise")  # type: ignore[attr-defined]
        sampler: Any = self._loader.batch_sampler.sampler
        sampler.set_epoch(trainer.current_epoch)
        ema = Ema.of(trainer)
        averages_in = nullcontext() if ema is None else ema.averages_in(pl_module)
        with averages_in, trainer.precision_plugin.forward_context():
            recompute(pl_module, self._clips(trainer, self._loader))
        self._loader.close()  # its workers would idle beside those of training

    def _clips(self, trainer: pl.Trainer, loader: WatchedLoader) -> Iterator[Tensor]:
        for batch in islice(loader, self.num_batches):
            yield trainer.strategy.batch_to_device(batch)["clips"].flatten(0, 1)


@torch.no_grad()
def recompute(network: nn.Module, inputs: Iterator[Tensor]) -> None:
    """Sets the statistics of the batch norms that are in training mode after `network.train()`.

    The variance is the unbiased one, as torch's own. Ranks must have as many inputs each.
    """
    sums: dict[nn.Module, Tensor] = {}  # (3, channels): values, their sum, the sum of their squares

    def add(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].float()
        variance, mean = torch.var_mean(values, [d for d in range(values.ndim) if d != 1], correction=0)
        mean, variance, count = mean.double(), variance.double(), values.numel() // values.shape[1]
        counts = torch.full_like(mean, count)
        new = torch.stack([counts, count * mean, count * (variance + mean**2)])
        sums[norm] = sums[norm] + new if norm in sums else new

    with _only_norms_training(network) as norms, ExitStack() as hooks:
        counters = [dict(norm.named_buffers())["num_batches_tracked"] for norm in norms]
        counts = [counter.clone() for counter in counters]
        for norm in norms:
            hooks.callback(norm.register_forward_pre_hook(add).remove)
        for clips in inputs:
            network(clips)
        for norm, counter, count in zip(norms, counters, counts, strict=True):
            counter.copy_(count)
            if norm in sums:
                _set_statistics(norm, sums[norm])


def _set_statistics(norm: _BatchNorm, sums: Tensor) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    count, total, squares = sums
    mean = total / count
    variance = (squares - count * mean**2) / (count - 1).clamp(min=1)
    buffers = dict(norm.named_buffers())
    buffers["running_mean"].copy_(mean)
    buffers["running_var"].copy_(variance)


@contextmanager
def _only_norms_training(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    """The batch norms with statistics that `network.train()` leaves in training mode; all modes are put back."""
    modes = {module: module.training for module in network.modules()}
    network.train()
    norms = [m for m in modes if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    network.eval()
    for norm in norms:
        norm.training = True
    try:
        yield norms
    finally:
        for module, mode in modes.items():
            module.training = mode
