"""The tables and the pictures of ablation.py, from what the tests of its runs left behind."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# Of Student's t distribution: 95 % lie between minus and plus this, by degrees of freedom.
T_95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
Values = Mapping[int, float]  # by seed


@dataclass(frozen=True)
class Row:
    """What came of a network.

    Attributes:
        name: of the network.
        scores: "clip" and "video" top-1, and means over groups of classes, in [0, 1] by seed.
        millions: parameters in 10^6.
        mega: multiply-adds of one clip in 10^6.
        step: time of a training step, as a share of that of the network without blocks.
    """

    name: str
    scores: Mapping[str, Values]
    millions: float = math.nan
    mega: float = math.nan
    step: float = math.nan

    def only(self, seeds: Sequence[int]) -> Row:
        """Of some seeds."""
        return replace(self, scores={name: {seed: of[seed] for seed in seeds} for name, of in self.scores.items()})


def read_scores(folder: Path, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Accuracies of one test: clip and video top-1, and the mean of the video top-1 of each group's classes.

    Raises:
        RuntimeError: not every video was scored.
    """
    results = json.loads((folder / "results.json").read_text())
    if results["coverage"] != 1:
        raise RuntimeError(f"{folder / 'results.json'}: only {results['num_scored']} of {results['num_videos']} videos")
    with (folder / "per_class.csv").open(newline="") as file:
        of_class = {row["class"]: float(row["video_top1"]) for row in csv.DictReader(file)}
    found = {name: statistics.mean(of_class[label] for label in labels) for name, labels in groups.items()}
    return {"clip": results["clip_top1"], "video": results["video_top1"], **found}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % confidence interval by Student's t; infinity for a single value."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, math.inf
    return mean, T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in so many trials (Wilson, 1927)."""
    z = 1.96
    middle, half = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)


def spread(values: Values) -> str:
    """Mean ± standard deviation in percent."""
    percent = [100 * value for value in values.values()]
    return f"{statistics.mean(percent):.1f}" + (f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else "")


def difference(values: Values, base: Values) -> str:
    """Mean difference, seed by seed, in points, with its 95 % interval; bold where that leaves out zero."""
    mean, half = interval([100 * (value - base[seed]) for seed, value in values.items()])
    if math.isinf(half):
        return f"{mean:+.1f}"
    text = f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"
    return f"**{text}**" if abs(mean) > half else text


def accuracies(
    rows: Sequence[Row], groups: Iterable[str], with_costs: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Header and cells: what each network reaches, and what it costs."""
    names = ["clip", "video", *groups]
    costs = ["parameters, M", "multiply-adds, M", "step"] if with_costs else []
    header = ["network", "seeds", *costs, "clip top-1", "video top-1", *groups]
    cells = [
        [
            row.name,
            str(len(row.scores["video"])),
            *([f"{row.millions:.3f}", f"{row.mega:.1f}", f"{row.step:.2f}"] if with_costs else []),
            *(spread(row.scores[name]) for name in names),
        ]
        for row in rows
    ]
    return header, cells


def against(rows: Sequence[Row], base: Row, groups: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: each network minus another one, seed by seed."""
    names = ["clip", "video", *groups]
    header = [f"minus {base.name}", "clip top-1", "video top-1", *groups]
    others = [row for row in rows if row is not base]
    return header, [[row.name, *(difference(row.scores[n], base.scores[n]) for n in names)] for row in others]


def draw(rows: Sequence[Row], group: str, path: Path) -> None:
    """Video top-1 of all classes and of one group against multiply-adds, as differences to the first row.

    Each row has the mean difference with its 95 % interval, and a dot for each seed beside it: where the seeds started,
    which rows have in common, is not in it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    costs = [row.mega for row in rows]
    beside = (max(costs) - min(costs)) / 80
    for axes, (name, title) in zip(panels, {"video": "all classes", group: group}.items(), strict=True):
        base = rows[0].scores[name]
        for number, row in enumerate(rows):
            apart = [100 * (value - base[seed]) for seed, value in row.scores[name].items()]
            mean, half = interval(apart)
            error, marker = (None, "s") if number == 0 or math.isinf(half) else (half, "o")
            axes.errorbar(row.mega, mean, error, color=f"C{number}", marker=marker, capsize=3, label=row.name)
            if number:
                axes.plot([row.mega + beside] * len(apart), apart, f"C{number}.", alpha=0.6)
        axes.axhline(0, color="C0", linewidth=0.8, linestyle=":")
        axes.set_title(f"{title} ({rows[0].name}: {statistics.mean(base.values()):.1%})")
        axes.set_xlabel("multiply-adds of a clip, millions")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"video top-1 minus {rows[0].name}, points\nbars: 95 % interval; dots: seeds")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
