"""The learning curves of a run as a picture, from what was logged."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from a2video.atomic import write_whole
from a2video.errors import InputError
from a2video.logs import LOGS, METRICS, Events, parts

Curve = tuple[list[float], list[float]]  # epochs done, values
TRAIN, VAL, FAINT = "#2b6cb0", "#dd6b20", "#a9c4e4"
RATES = ("#2f855a", "#805ad5", "#b83280", "#975a16")


def leave_learning_curves(trainer: pl.Trainer) -> None:
    """Puts learning_curves.png into the output folder, if the trainer has trained with our logs, and says where."""
    num_batches, accumulated = trainer.num_training_batches, trainer.accumulate_grad_batches
    if not trainer.is_global_zero or not any(isinstance(logger, Events) for logger in trainer.loggers):
        return
    if not 0 < num_batches < float("inf"):
        return  # it did not come to training
    folder, steps_per_epoch = Path(trainer.default_root_dir), -(-int(num_batches) // accumulated)
    try:
        path = draw_learning_curves(parts(folder / LOGS), steps_per_epoch, folder / "learning_curves.png")
    except (InputError, OSError) as error:  # such as a full disk, which may be what has stopped the training
        print(f"The learning curves cannot be written: {error}")
    else:
        if path is not None:
            print(f"Learning curves: {path}")


def draw_learning_curves(folders: Sequence[Path], steps_per_epoch: int, path: Path) -> Path | None:
    """Draws loss, top-1 accuracy and learning rate over the epochs.

    Args:
        folders: of the parts of a run, oldest first, each with metrics.csv (or none, if it ended before it had any).
        steps_per_epoch: logged steps in each epoch.
        path: the PNG file to write.

    Returns:
        The path, or None where nothing has been logged.
    """
    curves, resumed = read_curves(folders, steps_per_epoch)
    if not any(name in curves for name in ("train/loss", "train/epoch_loss", "train/top1", "val/top1")):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9))
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.06, top=0.9, hspace=0.12)
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2))
    _draw(loss, curves.get("train/loss"), FAINT, "training, single batches", linewidth=0.9, marker=".")
    _draw(loss, curves.get("train/epoch_loss"), TRAIN, "training, epoch", marker="o")
    _draw(loss, curves.get("val/loss"), VAL, "validation", marker="o")
    _draw(accuracy, _percent(curves.get("train/top1")), TRAIN, "training", marker="o")
    _draw_best(accuracy, _percent(curves.get("val/top1")))
    rates = sorted(name for name in curves if name == "lr" or name.startswith("lr_x"))
    for name, colour in zip(rates, RATES * len(rates), strict=False):
        _draw(rate, curves[name], colour, "base" if name == "lr" else f"parts at {name[4:]} of it", marker=".")
    loss.set_ylabel("loss")
    best = max([share for name in ("train/top1", "val/top1") for share in curves.get(name, ([], []))[1]], default=0)
    accuracy.set(ylabel="top-1 accuracy, %", ylim=(0, min(102, 130 * best or 102)))
    rate.set(ylabel="learning rate", xlabel="epochs", ylim=(0, None))
    last = max(epochs[-1] for epochs, _ in curves.values())
    rate.set_xlim(0, last * 1.01)
    steps = loss.secondary_xaxis("top", functions=(lambda x: x * steps_per_epoch, lambda x: x / steps_per_epoch))
    steps.set_xlabel("steps")
    for axes in (loss, accuracy, rate):
        for epoch in resumed:
            label = "resumed" * (axes is loss and epoch == resumed[0])
            axes.axvline(epoch, color="0.6", linewidth=1, linestyle=":", label=label)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.get_legend_handles_labels()[0]) > (axes is rate):
            axes.legend(frameon=False, fontsize=9)
    figure.suptitle(str(path.parent).replace("$", r"\$"), fontsize=12, y=0.98)
    return write_whole(path, lambda part: figure.savefig(part, format="png", dpi=110))


def read_curves(folders: Sequence[Path], steps_per_epoch: int) -> tuple[dict[str, Curve], list[float]]:
    """What was logged under each name, and the epochs at which the run was resumed.

    Where a part repeats steps of the one before it, which was killed, its own values count.
    """
    values: dict[str, dict[int, float]] = {}
    resumed = []
    for folder in folders:
        rows = _rows(folder / METRICS)
        if not rows:
            continue
        first = min(int(row["step"]) for row in rows)
        if values:
            resumed.append((first + 1) / steps_per_epoch)
        for curve in values.values():
            for step in [step for step in curve if step >= first]:
                del curve[step]
        for row in rows:
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    values.setdefault(name, {})[int(row["step"])] = float(value)
    curves = {
        name: ([(step + 1) / steps_per_epoch for step in sorted(curve)], [curve[step] for step in sorted(curve)])
        for name, curve in values.items()
        if curve
    }
    return curves, resumed


def _rows(path: Path) -> list[dict[str, str]]:
    """Of metrics.csv, but the last one if a kill has left it unfinished."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and row["step"]]


def _draw(axes: Any, curve: Curve | None, colour: str, label: str, **style: Any) -> None:
    if curve and curve[0]:
        axes.plot(*curve, color=colour, label=label, markersize=4, **style)


def _percent(curve: Curve | None) -> Curve | None:
    return curve and (curve[0], [100 * share for share in curve[1]])


def _draw_best(axes: Any, curve: Curve | None) -> None:
    """The validation's accuracy, the best one with a star: there best.ckpt was saved, if it goes by that."""
    if curve and curve[0]:
        epochs, percents = curve
        best = percents.index(max(percents))
        _draw(axes, curve, VAL, f"validation, best {percents[best]:.1f} % after epoch {epochs[best]:.4g}", marker="o")
        axes.plot(epochs[best], percents[best], "*", color=VAL, markersize=14)
