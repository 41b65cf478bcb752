"""What a test or a prediction leaves behind: results.json, tables, pictures."""

from __future__ import annotations

import csv
import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from a2video.data.protocols import Protocol
from a2video.data.transforms import Preprocessing
from a2video.data.video_list import NO_LABEL, VideoList
from a2video.data.views import load_test_views
from a2video.errors import InputError

ACCURACIES = ("clip_top1", "clip_top5", "video_top1", "video_top5")
MAX_NUMBERED_CLASSES = 20  # a confusion matrix with more classes shows colours only


@dataclass(frozen=True)
class Outcome:
    """What scoring a list gave.

    Attributes:
        videos: the whole list.
        scores: see VideoAccuracy.compute; without the videos that failed.
        errors: (video_index, message) of those.
        preprocessing: of the network.
        protocol: which views were scored, and how they were averaged.
        checkpoint: the file the weights came from.
        reader: import path of what decoded the videos.
    """

    videos: VideoList
    scores: dict[str, Tensor]
    errors: list[tuple[int, str]]
    preprocessing: Preprocessing
    protocol: Protocol
    checkpoint: str
    reader: str

    @property
    def probs(self) -> NDArray[np.float32]:
        """(num_scored, num_classes)."""
        probs: NDArray[np.float32] = self.scores["probs"].cpu().numpy()
        return probs

    @property
    def scored(self) -> list[int]:
        """Indices into `videos`, one for each row of `probs`."""
        indices: list[int] = self.scores["video_indices"].tolist()
        return indices


def coverage(outcome: Outcome) -> float:
    """The share of the listed videos that were scored."""
    return len(outcome.scored) / len(outcome.videos)


def summarize(outcome: Outcome) -> dict[str, Any]:
    """The content of results.json: accuracies in [0, 1] and everything that made them.

    Accuracies are over the scored videos; for those that end in `_all` a video that was not scored counts as wrong.
    """
    videos = outcome.videos
    num_scored = len(outcome.scored)
    accuracies = {name: round(float(outcome.scores[name]), 6) if num_scored else None for name in ACCURACIES}
    return {
        "protocol": outcome.protocol.name,
        "num_videos": len(videos),
        "num_scored": num_scored,
        "coverage": coverage(outcome),
        **accuracies,
        **{
            f"{name}_all": round((accuracies[name] or 0) * coverage(outcome), 6)
            for name in ("video_top1", "video_top5")
        },
        "chance": 1 / len(videos.class_names),
        "majority_baseline": max(Counter(videos.labels).values()) / len(videos),
        "list": videos.source,
        "checkpoint": outcome.checkpoint,
        "failed": [{"path": str(videos.paths[index]), "error": message} for index, message in outcome.errors],
        "class_names": list(videos.class_names),
        "preprocessing": outcome.preprocessing.to_dict(),
        "reader": outcome.reader,
        "versions": {name: version(name) for name in ("a2video", "torch", "lightning", "av", "numpy")}
        | {"python": platform.python_version()},
    }


def refuse_other_results(folder: Path, checkpoint: str, test_list: str | None) -> None:
    """Raises InputError if `folder` holds the results of another checkpoint or of another list."""
    results = folder / "results.json"
    if not results.is_file():
        return
    try:
        content = json.loads(results.read_text(encoding="utf-8"))
        found = (content["checkpoint"], content["list"])
    except (OSError, ValueError, KeyError, TypeError):
        found = ("something else", "something else")
    if found != (checkpoint, test_list and str(Path(test_list))):  # as VideoList.source has it
        raise InputError(
            f"{results} holds the test of {found[0]} on {found[1]}: choose another --trainer.default_root_dir, or "
            "replace it by --overwrite=true"
        )


def write_test(outcome: Outcome, folder: Path) -> list[Path]:
    """Writes results.json, test_predictions.csv, confusion_matrix.png and test_predictions.png; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    results.write_text(json.dumps(summarize(outcome), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    written = [results, write_predictions(outcome, folder / "test_predictions.csv")]
    if outcome.scored:
        written.append(draw_confusion_matrix(outcome, folder / "confusion_matrix.png"))
        written.append(draw_predictions(outcome, folder / "test_predictions.png"))
    return written


def write_predictions(outcome: Outcome, path: Path) -> Path:
    """One row for each video of the list: path, label, predicted, probability, error."""
    names, videos = outcome.videos.class_names, outcome.videos
    errors = dict(outcome.errors)
    probs = dict(zip(outcome.scored, outcome.probs, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "predicted", "probability", "error"])
        for index, (video, label) in enumerate(zip(videos.paths, videos.labels, strict=True)):
            best = [names[probs[index].argmax()], f"{probs[index].max():.6f}"] if index in probs else ["", ""]
            rows.writerow([video, "" if label == NO_LABEL else names[label], *best, errors.get(index, "")])
    return path


def draw_confusion_matrix(outcome: Outcome, path: Path) -> Path:
    """A picture of how often each class (row) was taken for each class (column)."""
    from matplotlib.figure import Figure

    names = _shown(outcome.videos.class_names)
    counts = np.zeros((len(names), len(names)), dtype=int)
    labels = outcome.scores["labels"].tolist()
    np.add.at(counts, (labels, outcome.probs.argmax(1)), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(names) <= MAX_NUMBERED_CLASSES
    side = 2.5 + 0.5 * len(names) if few else 10
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class's videos")
    if few:
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=f"{len(labels)} videos, video level")
    figure.savefig(path, dpi=120)
    return path


def draw_predictions(outcome: Outcome, path: Path, num_videos: int = 12) -> Path:
    """A picture of some videos as the network sees them, each with its prediction; wrong ones in red, at most half."""
    from matplotlib.figure import Figure

    names, scored, probs = _shown(outcome.videos.class_names), outcome.scored, outcome.probs
    labels = outcome.scores["labels"].tolist()
    is_wrong = probs.argmax(1) != np.array(labels)
    wrong = _spread(np.flatnonzero(is_wrong), num_videos // 2)
    right = _spread(np.flatnonzero(~is_wrong), num_videos - len(wrong))
    rows = sorted([*wrong, *right])
    figure = Figure(figsize=(12, 1.8 * -(-len(rows) // 2)), layout="constrained")
    for axes, row in zip(figure.subplots(-(-len(rows) // 2), 2, squeeze=False).flat, rows, strict=False):
        clip = load_test_views(outcome.videos.paths[scored[row]], outcome.preprocessing.one_view)[0]  # (3, T, H, W)
        shown = clip[:, np.linspace(0, clip.shape[1] - 1, 4).astype(int)].permute(1, 2, 3, 0).numpy()
        gap = max(1, shown.shape[2] // 30)  # a white line between frames
        bordered = np.pad(shown, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        axes.imshow(np.concatenate(list(bordered), axis=1))
        best = probs[row].argmax()
        text = f"{names[best]} {probs[row, best]:.0%}" + (f" (true: {names[labels[row]]})" if is_wrong[row] else "")
        axes.set_title(text, color="firebrick" if is_wrong[row] else "darkgreen", fontsize=11)
    for axes in figure.axes:
        axes.axis("off")
    figure.suptitle("Frames of the centre clip, in order of time, with the video-level prediction")
    figure.savefig(path, dpi=100)
    return path


def _shown(names: Sequence[str]) -> list[str]:
    """Names that matplotlib shows as they are, with no formula in them."""
    return [name.replace("$", r"\$") for name in names]


def _spread(rows: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of the rows, evenly spread."""
    if len(rows) > count:
        rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    return [int(row) for row in rows]


def comparison_table(results: Sequence[Path]) -> str:
    """The numbers of several results.json files (or their folders) side by side, and their protocols, as text.

    Raises:
        InputError: a file does not exist or is no results.json.
    """
    header = ["run", "clip top-1", "clip top-5", "video top-1", "video top-5", "scored", "chance", "majority"]
    lines, protocols = [header], []
    for path in results:
        file = path / "results.json" if path.is_dir() else path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            accuracies = []
            for name in ACCURACIES:
                says_nothing = content[name] is None or (name.endswith("5") and len(content["class_names"]) <= 5)
                accuracies.append("-" if says_nothing else f"{content[name]:.1%}")
            protocols.append(f"{file.parent}: {content['protocol']}")
            lines.append(
                [
                    str(file.parent),
                    *accuracies,
                    f"{content['num_scored']}/{content['num_videos']}",
                    f"{content['chance']:.1%}",
                    f"{content['majority_baseline']:.1%}",
                ]
            )
        except FileNotFoundError:
            raise InputError(f"{file} does not exist: give the results.json that `a2video test` wrote") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is not a results.json of `a2video test`: {error!r}") from error
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rows = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([*rows, *protocols])
