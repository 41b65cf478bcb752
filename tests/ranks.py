"""What the tests on several ranks plug into a run: batch norm over all ranks on the CPU, and a record of each rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncedBatchNorm(nn.BatchNorm3d):
    """nn.SyncBatchNorm written out for any device: its mean and variance are those of the values of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = torch.tensor([x.numel() / x.shape[1]], dtype=x.dtype)
        sums = all_reduce(torch.cat([x.sum((0, 2, 3, 4)), x.square().sum((0, 2, 3, 4)), count]))
        mean, square = sums[:-1].view(2, -1) / sums[-1]
        variance = square - mean**2
        self.num_batches_tracked += 1
        with torch.no_grad():
            unbiased = variance * sums[-1] / (sums[-1] - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        shape = (1, -1, 1, 1, 1)
        normalized = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return normalized * self.weight.view(shape) + self.bias.view(shape)


class SyncOnCpu(LayerSync):
    """Stands in for trainer.sync_batchnorm, which torch has for GPUs only."""

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.__class__ = SyncedBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        return model


class Record(pl.Callback):
    """Writes `folder`/<rank>.json: this rank's loss of each training step, what each validation logged, and the sum of
    the network's buffers that it had."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.losses: list[float] = []
        self.validations: list[dict[str, float]] = []
        self.statistics: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            metrics = trainer.callback_metrics.items()
            self.validations.append({name: float(value) for name, value in metrics if name.startswith("val/")})
            self.statistics.append(sum(float(buffer.double().sum()) for buffer in pl_module.network.buffers()))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {name: getattr(self, name) for name in ("losses", "validations", "statistics")}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(content))


def recorded(folder: Path, num_ranks: int) -> list[dict[str, Any]]:
    """What Record has written on each rank."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(num_ranks)]
