"""Where and how often the numbers of a run are kept: metrics.csv, TensorBoard's events, the folders of one run."""

from __future__ import annotations

import re
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

LOGS, METRICS, CONFIG = "logs", "metrics.csv", "config.yaml"


class Events(TensorBoardLogger):
    """TensorBoard's events, without the empty hparams.yaml: all settings are in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Puts on the disk what was logged."""
        self.experiment.flush()


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
    table = CSVLogger(folder, LOGS)
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
