"""The LightningModule: loss, clip-level and video-level scores, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, cast
from typing import Protocol as Interface

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from a2video.bad_losses import BadLosses
from a2video.bad_videos import BadVideos
from a2video.bf16_on_cpu import gradient_is_wrong, refuse_two_frames
from a2video.compatibility import check_num_classes, refusals_are_input_errors, refuse_other_training
from a2video.data.dataset import Batch
from a2video.data.protocols import Protocol
from a2video.data.transforms import Preprocessing
from a2video.ema import TRAINING_KEY, Ema
from a2video.errors import InputError
from a2video.freezing import Freeze
from a2video.gathering import gather_rows
from a2video.inference.scoring import score_steadily, score_views
from a2video.inference.weights import CHECKPOINT_KEY
from a2video.models.inflate import Inflation, load_pretrained
from a2video.optimizers import OptimizerBuilder, keep_settings
from a2video.recompute import recompute_parts
from a2video.results import accuracies, label_ranks, ranks_of, video_probs
from a2video.scheduled_lr import LearningRates, ScheduledLR, check_monitor, check_warmup, run_of, say_linear_rule
from a2video.schedules import Schedule
from a2video.scores import COLUMNS, LABEL, NUM_VIEWS, VIDEO, Rows, join
from a2video.throughput import Throughput
from a2video.watch_ranks import WatchRanks


class DescribedData(Interface):
    """What the recognizer asks of its trainer's datamodule."""

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    protocol: Protocol
    val_list: str | None
    batch_size: int
    test_batch_size: int


class Recognizer(pl.LightningModule):
    """Trains and tests a network that maps clips (B, 3, T, H, W) to raw logits (B, num_classes).

    Class names and preprocessing come from the trainer's datamodule and go into every checkpoint.

    Args:
        network: the network; one made by a builder of a2video.models can be rebuilt from the checkpoint alone.
        optimizer: a2video.optimizers.Sgd as in the paper, or AdamW.
        schedule: factor on the learning rate at each optimizer step; constant when None.
        base_batch_size: the clips in an update (data.batch_size x devices x trainer.accumulate_grad_batches) that the
            optimizer's lr, and what the schedule counts in updates, are meant for. With k times as many, lr is
            multiplied by k and those counts are divided by it (the linear rule). None: they are taken as they are.
        label_smoothing: the share of each training label that is spread over all classes, in [0, 1).
        freeze: what is not trained.
        channels_last: keep weights and clips in torch's channels_last layout, which is often faster.
        compile: let torch.compile make the network faster; the first steps of training and of validation take minutes.
        recompute: parts of the network, named as in `freeze`, whose activations are computed again in the backward pass
            instead of being kept: less memory, more time, the same results. `conv3.*` goes block by block.
        pretrained: a weights file to start training from (see a2video.models.load_pretrained); ImageNet weights and
            2D networks of ours are inflated.
        inflate: how: "center" or "mean".
        max_bad_losses: steps whose loss is not finite that are left out before such a loss stops the training.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerBuilder,
        schedule: Schedule | None = None,
        base_batch_size: int | None = None,
        label_smoothing: float = 0.0,
        freeze: Freeze | None = None,
        channels_last: bool = False,
        compile: bool = False,
        recompute: list[str] | None = None,
        pretrained: str | None = None,
        inflate: Inflation = "center",
        max_bad_losses: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"model.label_smoothing must be in [0, 1), got {label_smoothing}")
        if base_batch_size is not None and base_batch_size < 1:
            raise InputError(f"model.base_batch_size must be at least 1, got {base_batch_size}")
        self.network = network
        self.optimizer = optimizer
        self.schedule = schedule
        self.base_batch_size = base_batch_size
        self.label_smoothing = label_smoothing
        self.frozen = freeze or Freeze()
        self.frozen.stop_gradients(network)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError(f"model.network {type(network).__name__} has no parameter to train: give one, freeze less")
        self.pretrained = pretrained
        self.inflate = inflate
        self.bad_losses = BadLosses(max_bad_losses)
        self.channels_last = channels_last
        formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
        for weight in self.network.parameters():
            if weight.ndim in formats:
                weight.data = weight.data.contiguous(memory_format=formats[weight.ndim])
        recompute_parts(network, recompute or [])
        if compile:
            # At its first call, in place: names, checkpoints, callbacks see the same network. Not with dynamic sizes,
            # for which inductor of torch 2.13 fails on a2net_resnet50 (ValueRangeError): there are few sizes in a run.
            network.compile(dynamic=False)
        self.class_names: tuple[str, ...] = ()
        self.rows = Rows.none(0)  # of the last validation, test or prediction; on the first rank
        self.resumed = Rows.none(0)  # of a test that was interrupted; on the first rank
        self.errors: list[tuple[int, str]] = []  # (video_index, message) of videos that could not be read
        self.train()

    def train(self, mode: bool = True) -> Self:
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        self.frozen.set_modes(self.network)
        return self

    @property
    def data(self) -> DescribedData:
        """The datamodule of the running trainer."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None:
            raise InputError("Recognizer takes class names and preprocessing from a datamodule: give the trainer one")
        return cast(DescribedData, datamodule)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Bad videos and losses, lost ranks, speed and learning rates are reported whoever made the trainer."""
        return [WatchRanks(), BadVideos(), self.bad_losses, Throughput(), LearningRates()]

    def setup(self, stage: str) -> None:
        """Checks that the network's logits are one for each class of the data, and loads pretrained weights."""
        self.class_names = self.data.class_names
        if self.class_names:
            check_num_classes(getattr(self.network, "num_classes", len(self.class_names)), self.class_names)
        if stage == "fit" and self.pretrained is not None:
            try:
                report = load_pretrained(self.network, self.pretrained, self.inflate)
            except ValueError as error:
                raise InputError(f"model.pretrained: {error}") from error
            if self.trainer.is_global_zero:
                print(f"Pretrained {self.pretrained}, {report}")

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (N, 3, T, H, W) -> logits (N, num_classes)."""
        with refusals_are_input_errors():
            logits: Tensor = self.network(self.data.preprocessing.normalize(clips))
        check_num_classes(logits.shape[-1], self.class_names)
        return logits

    def on_fit_start(self) -> None:
        """Sees to it that bf16 on a CPU gives no wrong gradients, and that each rank draws dropout of its own.

        The first rank draws what a single process would.
        """
        if self.device.type == "cpu" and "bf16" in str(self.trainer.precision) and gradient_is_wrong():
            refuse_two_frames(self.network)
        if self.global_rank > 0:
            own = np.random.SeedSequence([torch.initial_seed(), self.global_rank])
            torch.manual_seed(int(own.generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy over the clips of the batch; of mixed clips the larger part counts for accuracy."""
        logits = self(batch["clips"].flatten(0, 1))
        labels = batch["labels"].repeat_interleave(batch["clips"].shape[1], dim=0)
        targets = labels.to(logits.dtype) if labels.ndim == 2 else labels  # shares of each class, from mixup or cutmix
        loss = cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        labels = labels.argmax(1) if labels.ndim == 2 else labels
        if not self.bad_losses.accepts(self, batch, loss):
            return loss  # all ranks go through the backward pass; no gradient of it is used
        top = {f"train/top{k}": top_accuracy(logits, labels, k) for k in (1, 5)}
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict(top, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels), sync_dist=True)
        self.log("train/epoch_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Lets the schedule know how the epoch went."""
        if self.schedule is not None and self.schedule.monitor is not None:
            cast(ScheduledLR, self.lr_schedulers()).observe(self.trainer, self.schedule.monitor)

    def on_validation_epoch_start(self) -> None:
        """Forgets earlier scores, and gives all ranks the statistics of the first one: those that are saved."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._start_scoring()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores the centre view of each video."""
        self.errors += batch["errors"]
        labels = batch["labels"]
        if len(labels):
            logits = self._logits(batch["clips"].flatten(0, 1))
            views = np.zeros((len(labels), len(COLUMNS)), np.int32)
            views[:, VIDEO], views[:, LABEL], views[:, NUM_VIEWS] = batch["video_indices"].cpu(), labels.cpu(), 1
            self.scored.append(Rows(views, logits.float().cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Logs val/loss, val/top1 and val/top5, in which a video that could not be read counts as wrong.

        With one view, clip level and video level are the same. Lightning's own means over ranks are wrong where ranks
        have unequal numbers of videos: it takes whole numbers for their mean number.
        """
        self._finish_scoring()
        labels = self.rows.views[:, LABEL].astype(np.int64)
        ranks, num_scored = label_ranks(self.rows.logits, labels), len(labels)
        num_listed = max(1, num_scored + len(self.errors))
        losses = cross_entropy(torch.from_numpy(self.rows.logits), torch.from_numpy(labels), reduction="sum")
        found = {f"val/top{k}": float((ranks < k).sum() / num_listed) for k in (1, 5)}
        found["val/loss"] = float(losses) / max(1, num_scored)
        num_scored, self.val_scores = self.trainer.strategy.broadcast((num_scored, found))
        if num_scored == 0 and not self.trainer.sanity_checking:
            raise InputError(f"no video of data.val_list could be read, such as {self.errors[0][1]}")
        if self.errors:
            self.log("val/num_unscored", float(len(self.errors)), prog_bar=True, sync_dist=True)
        self.log("val/loss", self.val_scores.pop("val/loss"), sync_dist=True)
        self.log_dict(self.val_scores, prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Forgets earlier scores."""
        self._start_scoring()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Rows]:
        """Scores all views of each video, which it returns."""
        self.errors += batch["errors"]
        rows = Rows.none(len(self.class_names))
        if batch["views"]:
            score = partial(score_steadily, num_together=self.data.test_batch_size)
            logits = self._logits(batch["clips"].flatten(0, 1), score)
            owners = zip(batch["video_indices"].tolist(), batch["labels"].tolist(), batch["views"], strict=True)
            table = [(*own, n, len(views), *view[:4]) for *own, views in owners for n, view in enumerate(views)]
            rows = Rows(np.array(table, np.int32), logits.float().cpu().numpy())
        self.scored.append(rows)
        return {"rows": rows}

    def on_test_epoch_end(self) -> None:
        """Leaves `rows` and `errors` of all ranks, the first one's with `resumed`, and logs accuracies."""
        self._finish_scoring()
        found: dict[str, float | None] = {}
        if self.trainer.is_global_zero:
            self.rows = join([self.rows, self.resumed]).once() if len(self.resumed) else self.rows
            protocol = self.data.protocol
            ranks = ranks_of(self.rows, video_probs(self.rows, protocol.average), protocol.centre_view)
            found = accuracies(ranks, 1.0)
        found = self.trainer.strategy.broadcast(found)
        self.log_dict({f"test/{name}": top for name, top in found.items() if top is not None and "_all" not in name})

    on_predict_epoch_start = on_test_epoch_start

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Like test_step."""
        self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        """Leaves `rows` of all ranks on the first, and `errors`."""
        self._finish_scoring()

    def _start_scoring(self) -> None:
        self.errors = []
        self.scored = [Rows.none(len(self.class_names))]  # by this rank

    def _logits(self, clips: Tensor, score: Callable[..., Tensor] = score_views) -> Tensor:
        """Logits (N, num_classes) of uint8 clips (N, 3, T, H, W)."""
        with refusals_are_input_errors():
            logits = score(self.network, self.data.preprocessing, clips)
        check_num_classes(logits.shape[-1], self.class_names)
        if not torch.isfinite(logits).all():
            raise InputError(
                "the network gives logits that are not finite: its weights are of a training that diverged"
            )
        return logits

    def _finish_scoring(self) -> None:
        self.rows = gather_rows(self.scored, self.device)
        self.scored = []  # its memory
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            of_ranks: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(of_ranks, self.errors)
            self.errors = [error for errors in of_ranks for error in errors]
        self.errors = sorted({(index, message) for index, message in self.errors})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of what is not frozen, and the schedule, stepped after each update."""
        optimizer = self.optimizer.build(self.network)
        optimizer.register_load_state_dict_pre_hook(keep_settings)
        if self.schedule is not None and self.schedule.monitor is not None:
            check_monitor(self.trainer, self.schedule.monitor, self.data.val_list is not None)
        has_no_step = 0 in (self.trainer.limit_train_batches, self.trainer.max_epochs, self.trainer.max_steps)
        if has_no_step or (self.schedule is None and self.base_batch_size is None):
            return {"optimizer": optimizer}
        run = run_of(self.trainer, self.data.batch_size, self.base_batch_size)
        say_linear_rule(self.trainer, self.data.batch_size, self.optimizer.lr, run)
        if self.schedule is not None:
            check_warmup(self.schedule, run)
        scheduler = ScheduledLR(optimizer, self.schedule, run)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what inference needs: the network's description, class names and preprocessing, all plain data."""
        if (ema := Ema.of(self.trainer)) is not None:
            ema.put_into(checkpoint, with_training="callbacks" in checkpoint)
        checkpoint[CHECKPOINT_KEY] = {
            "network": getattr(self.network, "description", None),
            "class_names": list(self.class_names),
            "preprocessing": self.data.preprocessing.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that does not fit, see refuse_other_training."""
        ours = checkpoint.get(CHECKPOINT_KEY)
        if ours is None:
            raise InputError("this checkpoint was not written by a2video: give a .ckpt file that `a2video fit` wrote")
        if self.trainer.state.fn == "fit" and TRAINING_KEY in checkpoint and Ema.of(self.trainer) is None:
            raise InputError(
                "the checkpoint has averages of its weights: put a2video.ema.Ema into trainer.callbacks again"
            )
        self.class_names = self.class_names or tuple(ours["class_names"])
        refuse_other_training(ours, self.network, self.class_names, self.data.preprocessing)


def top_accuracy(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """The share of rows of `scores` (N, K) that have their label among the k largest."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).float().mean()
