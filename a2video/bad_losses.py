"""What happens when the loss is no number: which videos and which checkpoint to look at, or the step left out."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from a2video.checkpoint_files import newest_finite
from a2video.data.dataset import Batch
from a2video.errors import InputError

if TYPE_CHECKING:
    from a2video.datamodule import VideoDataModule

NUM_NAMED = 4  # videos that the message itself names
COLUMNS = ("path", "loss", "rank", "epoch", "step")


class BadLosses(pl.Callback):
    """Stops a training whose loss is not finite, or leaves out that step, at most `max_bad_losses` times in all.

    A step that is left out changes neither weights, nor buffers such as those of batch norm, nor the optimiser's
    state, on any rank, also where its other batches were good; the schedule goes on. The videos of the batch are
    listed in bad_losses.csv of trainer.default_root_dir.

    Args:
        max_bad_losses: steps that may be left out before the training stops.

    Attributes:
        is_bad: whether the step that is under way, or has just ended, is left out.
    """

    def __init__(self, max_bad_losses: int = 0) -> None:
        if max_bad_losses < 0:
            raise InputError(f"model.max_bad_losses must be at least 0, got {max_bad_losses}")
        self.max_bad_losses = max_bad_losses
        self.num_bad = 0
        self.is_bad = False
        self._buffers: list[Tensor] = []  # before this step

    @staticmethod
    def leaves_out(trainer: pl.Trainer) -> bool:
        """Whether the trainer's step that is under way, or has just ended, is left out."""
        return any(isinstance(callback, BadLosses) and callback.is_bad for callback in trainer.callbacks)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The count goes on where it was."""
        return {"num_bad": self.num_bad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See state_dict."""
        self.num_bad = state_dict["num_bad"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Keeps the buffers of the network, which forward passes change, if the step may have to be undone."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        self.is_bad = False
        if self.max_bad_losses:
            self._buffers = [buffer.detach().clone() for buffer in pl_module.buffers()]

    def accepts(self, pl_module: pl.LightningModule, batch: Batch, loss: Tensor) -> bool:
        """Whether this loss is finite on all ranks; if not, its gradients will not be used.

        Raises:
            InputError: it is not finite on some rank, and no more steps may be left out.
        """
        trainer = pl_module.trainer
        is_bad = ~torch.isfinite(loss.detach())
        if trainer.world_size > 1:
            is_bad = is_bad.int()
            torch.distributed.all_reduce(is_bad, torch.distributed.ReduceOp.MAX)
        if not is_bad:
            return True
        losses = _of_ranks(trainer, batch, float(loss.detach()))
        self.num_bad += not self.is_bad
        self.is_bad = True
        path = Path(trainer.default_root_dir) / "bad_losses.csv"
        if trainer.is_global_zero:
            _write(path, trainer, losses)
        if self.num_bad > self.max_bad_losses:
            raise InputError(_sentence(trainer, losses, path, self.max_bad_losses))
        return False

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the buffers in a step that is left out, before any callback can look at them."""
        if self.is_bad:
            for buffer, before in zip(pl_module.buffers(), self._buffers, strict=True):
                buffer.copy_(before)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Takes the gradients from a step that is left out, also those of its other batches."""
        if self.is_bad:
            optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Shows how many there were."""
        if self.num_bad:
            pl_module.log("bad_losses", float(self.num_bad), prog_bar=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how many there were, if any."""
        if trainer.is_global_zero and self.num_bad:
            path = Path(trainer.default_root_dir) / "bad_losses.csv"
            print(f"Left out {self.num_bad} of {trainer.global_step} steps, whose loss was not finite: see {path}")


def _of_ranks(trainer: pl.Trainer, batch: Batch, loss: float) -> list[tuple[int, float, list[Path]]]:
    """(rank, loss, videos) of the ranks whose loss is not finite."""
    videos = cast("VideoDataModule", trainer.datamodule).videos["train"]  # type: ignore[attr-defined]
    paths = [Path(videos.paths[index]) for index in batch["video_indices"].tolist()]
    mine = (trainer.global_rank, loss, paths)
    of_ranks: list[Any] = [mine]
    if trainer.world_size > 1:
        of_ranks = [None] * trainer.world_size
        torch.distributed.all_gather_object(of_ranks, mine)
    return [of_rank for of_rank in of_ranks if not math.isfinite(of_rank[1])]


def _write(path: Path, trainer: pl.Trainer, losses: list[tuple[int, float, list[Path]]]) -> None:
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for rank, loss, videos in losses:
            for video in videos:
                writer.writerow([video, loss, rank, trainer.current_epoch, trainer.global_step])


def _sentence(trainer: pl.Trainer, losses: list[tuple[int, float, list[Path]]], path: Path, max_bad_losses: int) -> str:
    videos = [str(video) for _, _, of_rank in losses for video in of_rank]
    named = ", ".join(videos[:NUM_NAMED])
    if len(videos) > NUM_NAMED:
        named += f" and {len(videos) - NUM_NAMED} more (see {path})"
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    good = newest_finite(Path(trainer.default_root_dir))
    go_on = f"go on from {good}, the last checkpoint whose weights are finite" if good else "start anew"
    skipped = f" after {max_bad_losses} steps that were left out" if max_bad_losses else ""
    return (
        f"the training loss is {losses[0][1]} at step {trainer.global_step}{skipped}, with the videos {named}: "
        f"{go_on}, and lower model.optimizer.lr (the rate was {max(rates):g}), give the schedule more warmup_steps, or "
        "let a few such steps be left out by model.max_bad_losses"
    )
