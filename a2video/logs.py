"""Where and how often the numbers of a run are kept: metrics.csv, TensorBoard's events, the folders of one run."""

from __future__ import annotations

import csv
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import cast

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]
from lightning.pytorch.utilities import rank_zero_only
from tensorboardX import SummaryWriter
from tensorboardX.event_file_writer import EventFileWriter

from a2video.atomic import write_text
from a2video.errors import InputError

LOGS, METRICS, CONFIG = "logs", "metrics.csv", "config.yaml"
GO_ON = "make room for it, then go on from the last checkpoint by --ckpt_path last"


class Rows(ExperimentWriter):
    """metrics.csv, of which nothing is lost where a disk is full or the process is killed while it gets new columns."""

    def save(self) -> None:
        """Adds the rows that were logged since the last call: all or none of them.

        Raises:
            InputError: the file cannot be written.
        """
        path = Path(self.metrics_file_path)
        try:
            self._size = path.stat().st_size if path.is_file() else 0
            super().save()
        except OSError as error:
            self.metrics = []  # not to be tried once more at the end
            with suppress(OSError):
                os.truncate(path, self._size)
            raise InputError(f"{path} cannot be written ({error.strerror or error}): {GO_ON}") from error

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path, text = Path(self.metrics_file_path), io.StringIO(newline="")
        table = csv.DictWriter(text, fieldnames)
        table.writeheader()
        with path.open(newline="", encoding="utf-8") as file:
            table.writerows(csv.DictReader(file))
        self._size = write_text(path, text.getvalue()).stat().st_size


class Table(CSVLogger):
    """Lightning's logger, with our way to write the file."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Rows:
        """What writes."""
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = Rows(log_dir=self.log_dir)
        return cast(Rows, self._experiment)


class Events(TensorBoardLogger):
    """TensorBoard's events, without the empty hparams.yaml: all settings are in config.yaml.

    They are written at once. TensorboardX has a thread for it, which ends when the clock is set back by a month or the
    disk is full; after ten more events the training would then wait for it for ever.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """What writes."""
        is_new = self._experiment is None
        summaries = super().experiment
        writer = summaries.file_writer.event_writer if is_new else None
        if isinstance(writer, EventFileWriter):  # and not that of the package tensorboard
            writer._worker.stop()
            writer.add_event = writer._ev_writer.write_event
        return summaries

    @rank_zero_only
    def save(self) -> None:
        """Puts on the disk what was logged.

        Raises:
            InputError: it cannot be written.
        """
        try:
            self.experiment.flush()
        except OSError as error:
            self.experiment.file_writer.event_writer._closed = True  # not to be tried once more at the end
            raise InputError(f"{self.log_dir} cannot be written to ({error.strerror or error}): {GO_ON}") from error

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the file; that the disk is full has been said."""
        with suppress(OSError):
            super().finalize(status)


class ShortEpochs(pl.Callback):
    """Logs single steps, with speed and learning rate, at least once in each epoch.

    For runs that choose no trainer.log_every_n_steps: Lightning's own 50 would leave nothing of a short one.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By now the length of an epoch is known."""
        updates = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        trainer.log_every_n_steps = min(trainer.log_every_n_steps, max(1, updates))  # type: ignore[attr-defined]


def loggers(folder: Path, resumed_at: int | None) -> list[Logger]:
    """Each start of a training gets metrics.csv in a folder of its own; events of a resumed one join those of its run.

    Args:
        folder: of all output.
        resumed_at: the number with which steps are logged next, in a run that is resumed; None in a new one.
    """
    table = Table(folder, LOGS)
    if resumed_at is None:
        return [table, Events(folder, LOGS, table.version, default_hp_metric=False)]
    earlier = parts(folder / LOGS)
    version = _number(earlier[0]) if earlier else table.version
    # TensorBoard forgets the steps that a killed run had logged and this one repeats
    return [table, Events(folder, LOGS, version, default_hp_metric=False, purge_step=resumed_at)]


def parts(logs: Path) -> list[Path]:
    """The folders of the last run in `logs`, oldest first: its beginning, and one for each time it was resumed."""
    versions = [
        path
        for path in logs.glob("version_*")
        if path.name.removeprefix("version_").isdigit() and (path / CONFIG).is_file()
    ]
    found: list[Path] = []
    for path in sorted(versions, key=_number, reverse=True):
        found.insert(0, path)
        if re.search(r"^ckpt_path: null$", (path / CONFIG).read_text(encoding="utf-8"), re.MULTILINE):
            break
    return found


def _number(version: Path) -> int:
    return int(version.name.removeprefix("version_"))
