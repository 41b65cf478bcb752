"""Reports the videos that training and validation could not read, and stops a run that has too many of them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch

from a2video.data.dataset import Batch
from a2video.errors import InputError

if TYPE_CHECKING:
    from a2video.datamodule import VideoDataModule
    from a2video.recognizer import Recognizer

SHARE_EVERY = 50  # batches after which the ranks tell each other: seldom enough to cost nothing
COLUMNS = ("path", "reason", "rank", "epoch")


class BadVideos(pl.Callback):
    """Lists each bad video in bad_videos.csv of trainer.default_root_dir as it is met, and counts them.

    The count is in the progress bar, of all ranks as far as they have told each other, which they do every
    SHARE_EVERY batches and with the last batch of an epoch. More bad training videos than `data.max_bad_share` of the
    list stop the run: on all ranks at the same place, so that none waits for another.
    """

    def __init__(self) -> None:
        self.found: dict[str, set[int]] = {"train": set(), "val": set()}  # indices into the lists, of all ranks
        self._listed: set[str] = set()  # paths, by this rank or in the run that is resumed
        self._path = Path()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes the file of an earlier run, or goes on with that of the run that is resumed."""
        self._path = Path(trainer.default_root_dir) / "bad_videos.csv"
        if trainer.ckpt_path is None:
            if trainer.local_rank == 0:
                self._path.unlink(missing_ok=True)
            trainer.strategy.barrier()
        elif self._path.is_file():
            with self._path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                self._listed.update(row[0] for row in csv.reader(file) if row)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Lists and counts; stops a run that has too many bad videos."""
        self._list(trainer, "train", batch["errors"])
        is_last = trainer.is_last_batch or 0 < trainer.max_steps <= trainer.global_step
        if trainer.world_size == 1 or (batch_idx + 1) % SHARE_EVERY == 0 or is_last:
            self._share(trainer)  # here and not at the epoch's end, where a progress bar makes one rank wait for others
        if count := sum(map(len, self.found.values())):
            pl_module.log("bad_videos", float(count), prog_bar=True, batch_size=1)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Lists and counts."""
        if trainer.state.fn == "fit":
            self._list(trainer, "val", batch["errors"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over what the recognizer has gathered from all ranks."""
        if trainer.state.fn == "fit":
            self.found["val"].update(index for index, _ in cast("Recognizer", pl_module).errors)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how many there were, if any."""
        if trainer.is_global_zero and any(self.found.values()):
            counts = " and ".join(
                f"{len(found)} of {len(_data(trainer).videos[name])} {name} videos"
                for name, found in self.found.items()
                if found
            )
            print(f"Bad videos: {counts} could not be read, see {self._path}")

    def _list(self, trainer: pl.Trainer, name: str, errors: list[tuple[int, str]]) -> None:
        for index, message in errors:
            self.found[name].add(index)
            video = _data(trainer).videos[name].paths[index]
            if video in self._listed:
                continue
            self._listed.add(video)
            reason = message.removeprefix(f"{video}: ")
            self._append([video, reason, str(trainer.global_rank), str(trainer.current_epoch)])

    def _append(self, row: list[str]) -> None:
        """Adds a line in one go, for other ranks append to the same file; the first one of them adds the header."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            table.writerow(COLUMNS)
        except FileExistsError:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        table.writerow(row)
        try:
            os.write(file, os.fsencode(text.getvalue()))
        finally:
            os.close(file)

    def _share(self, trainer: pl.Trainer) -> None:
        """Unites what the ranks have found.

        Raises:
            InputError: too many training videos are bad.
        """
        if trainer.world_size > 1:
            of_ranks: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(of_ranks, self.found)
            self.found = {name: set().union(*(found[name] for found in of_ranks)) for name in self.found}
        num_bad = len(self.found["train"])
        if num_bad == 0:
            return
        data = _data(trainer)
        if num_bad > data.max_bad_share * len(data.videos["train"]):
            raise InputError(
                f"{num_bad} of the {len(data.videos['train'])} training videos could not be read, more than the share "
                f"of {data.max_bad_share:g} that data.max_bad_share allows: see {self._path}, then clean the list "
                "with data_prep/verify.py or raise data.max_bad_share"
            )


def _data(trainer: pl.Trainer) -> VideoDataModule:
    return cast("VideoDataModule", trainer.datamodule)  # type: ignore[attr-defined]
