"""What a test or a prediction leaves behind, beside its numbers: tables of videos, pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from a2video.atomic import write_text, write_whole
from a2video.data.transforms import Preprocessing
from a2video.data.video_list import NO_LABEL
from a2video.data.views import load_test_views
from a2video.errors import InputError
from a2video.html_report import write_html_report
from a2video.results import video_probs, write_results
from a2video.score_files import write_scores
from a2video.scores import Scores

MAX_NUMBERED_CLASSES = 20  # a confusion matrix with more classes shows colours only


def write_test(scores: Scores, folder: Path) -> list[Path]:
    """Writes scores.parquet, all of write_tables, and what needs videos: test_predictions.png and report.html.

    Returns:
        The paths, that of results.json first.
    """
    scores_file = write_scores(scores, folder / "scores.parquet")
    written = [*write_tables(scores, folder), scores_file]
    if len(scores.scored):
        written.append(draw_predictions(scores, folder / "test_predictions.png"))
    return [*written, write_html_report(scores, folder / "report.html", datetime.now(UTC))]


def write_tables(scores: Scores, folder: Path) -> list[Path]:
    """Writes results.json, per_class.csv, test_predictions.csv and confusion_matrix.png; returns the paths."""
    written = [*write_results(scores, folder), write_predictions(scores, folder / "test_predictions.csv")]
    if len(scores.scored):
        written.append(draw_confusion_matrix(scores, folder / "confusion_matrix.png"))
    return written


def write_predictions(scores: Scores, path: Path) -> Path:
    """One row for each video of the list: path, label, predicted, probability, error."""
    names = scores.class_names
    probs = dict(zip(scores.scored.tolist(), video_probs(scores.rows, scores.about.average), strict=True))
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["path", "label", "predicted", "probability", "error"])
    for video, (file, label) in enumerate(zip(scores.paths, scores.labels, strict=True)):
        best = [names[probs[video].argmax()], f"{probs[video].max():.6f}"] if video in probs else ["", ""]
        rows.writerow([file, "" if label == NO_LABEL else names[label], *best, scores.unscored.get(video, "")])
    return write_text(path, table.getvalue())


def draw_confusion_matrix(scores: Scores, path: Path) -> Path:
    """A picture of how often each class (row) was taken for each class (column)."""
    from matplotlib.figure import Figure

    names, labels = _shown(scores.class_names), scores.scored_labels
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (labels, video_probs(scores.rows, scores.about.average).argmax(1)), 1)
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
    return write_whole(path, lambda part: figure.savefig(part, format="png", dpi=120))


def draw_predictions(scores: Scores, path: Path, num_videos: int = 12) -> Path:
    """A picture of some videos as the network sees them, each with its prediction; wrong ones in red, at most half."""
    from matplotlib.figure import Figure

    names, labels = _shown(scores.class_names), scores.scored_labels
    probs = video_probs(scores.rows, scores.about.average)
    one_view = Preprocessing.from_dict(scores.about.preprocessing).one_view
    is_wrong = probs.argmax(1) != labels
    wrong = _spread(np.flatnonzero(is_wrong), num_videos // 2)
    right = _spread(np.flatnonzero(~is_wrong), num_videos - len(wrong))
    rows = sorted([*wrong, *right])
    figure = Figure(figsize=(12, 1.8 * -(-len(rows) // 2)), layout="constrained")
    for axes, row in zip(figure.subplots(-(-len(rows) // 2), 2, squeeze=False).flat, rows, strict=False):
        try:
            axes.imshow(_frames(scores.paths[scores.scored[row]], one_view))
        except (InputError, RuntimeError):  # RuntimeError: torch has no memory for it
            axes.text(0.5, 0.5, "cannot be read any more", ha="center", va="center")
        best = probs[row].argmax()
        text = f"{names[best]} {probs[row, best]:.0%}" + (f" (true: {names[labels[row]]})" if is_wrong[row] else "")
        axes.set_title(text, color="firebrick" if is_wrong[row] else "darkgreen", fontsize=11)
    for axes in figure.axes:
        axes.axis("off")
    figure.suptitle("Frames of the centre clip, in order of time, with the video-level prediction")
    return write_whole(path, lambda part: figure.savefig(part, format="png", dpi=100))


def _frames(path: str, one_view: Preprocessing) -> NDArray[np.uint8]:
    """Four frames of the centre clip side by side, (H, W, 3)."""
    clip = load_test_views(path, one_view)[0]  # (3, T, H, W)
    shown = clip[:, np.linspace(0, clip.shape[1] - 1, 4).astype(int)].permute(1, 2, 3, 0).numpy()
    gap = max(1, shown.shape[2] // 30)  # a white line between frames
    bordered = np.pad(shown, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(bordered), axis=1)


def _shown(names: Sequence[str]) -> list[str]:
    """Names that matplotlib shows as they are, with no formula in them."""
    return [name.replace("$", r"\$") for name in names]


def _spread(rows: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of the rows, evenly spread."""
    if len(rows) > count:
        rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    return [int(row) for row in rows]
