"""Training small enough to be worked out by hand: batches of one number, a network of one weight."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.recognizer import Recognizer


class OneWeight(nn.Module):
    """logits (w x, 0) of clips of the constant x. With label 0 the loss is log(1 + exp(-w x))."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, clips: Tensor) -> Tensor:
        x = clips.flatten(1).mean(1)
        return torch.stack([self.w * x, 0 * x], 1)


def batch_of(clips: Tensor, labels: Sequence[Any]) -> dict[str, Any]:
    """Clips (B, 3, T, H, W) in [0, 1], one of each video."""
    indices = torch.arange(len(clips))
    return {"clips": 255 * clips[:, None], "labels": torch.tensor(labels), "video_indices": indices, "errors": []}


class Batches:
    """Takes the place of a loader."""

    def __init__(self, batches: Sequence[dict[str, Any]]) -> None:
        self.batches = batches
        self.batch_sampler = self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def close(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.batches)


class TinyData(pl.LightningDataModule):
    """Training and validation on the same batches."""

    def __init__(self, batches: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.batches = Batches(batches)
        self.class_names = ("a", "b")
        self.preprocessing = Preprocessing(1, 1, 1, 1, 1, 1, mean=(0, 0, 0), std=(1, 1, 1))
        self.val_list: str | None = "the training batches"
        self.batch_size = 1

    @classmethod
    def of(cls, values: Sequence[float], labels: Sequence[Any] | None = None) -> TinyData:
        """Batches of one video, each a constant."""
        pairs = zip(values, labels or [0] * len(values), strict=True)
        return cls([batch_of(torch.full((1, 3, 1, 1, 1), float(value)), [label]) for value, label in pairs])

    def train_dataloader(self, name: str = "train") -> Batches:
        return self.batches

    val_dataloader = train_dataloader


class Record(pl.Callback):
    """The learning rates that each update was made with, and the training weights after it."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if hasattr(pl_module.network, "w") and len(self.weights) < trainer.global_step:
            self.weights.append(pl_module.network.w.item())


def fit(
    module: Recognizer,
    data: TinyData,
    folder: Path,
    callbacks: Sequence[pl.Callback] = (),
    checkpoint: Path | None = None,
    **options: Any,
) -> tuple[Record, pl.Trainer]:
    """Trains on the CPU; last.ckpt of each epoch goes to the folder."""
    record = Record()
    last = pl.callbacks.ModelCheckpoint(folder, "last", enable_version_counter=False)
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, record, last],
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec|.*Checkpoint directory|.*Be aware that when using|Found \d+ module"
        )
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return record, trainer
