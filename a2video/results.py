"""The numbers that scores give: the one place where accuracies are worked out, for test, rescore and reports alike."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from a2video.atomic import write_text
from a2video.data.protocols import Average
from a2video.inference.scoring import average_views
from a2video.scores import CLIP, FUSED_CLIP, LABEL, NUM_VIEWS, VIDEO, VIEW, FloatArray, Rows, Scores

LEVELS = ("center", "clip", "video")
NUM_BINS = 15  # of confidence
NUM_CONFUSED = 10  # pairs in results.json
CHUNK = 1 << 16  # rows compared at a time: bounds the memory

Ranks = NDArray[np.int64]


def label_ranks(scores: FloatArray, labels: NDArray[Any]) -> Ranks:
    """How many classes come before the label's in each row of `scores` (N, K); of equal ones the first does."""
    ranks = np.empty(len(labels), np.int64)
    for start in range(0, len(labels), CHUNK):
        part, label = scores[start : start + CHUNK], labels[start : start + CHUNK, None].astype(np.int64)
        own = np.take_along_axis(part, label, 1)
        is_before = np.arange(part.shape[1]) < label
        ranks[start : start + CHUNK] = ((part > own) | ((part == own) & is_before)).sum(1)
    return ranks


def video_probs(rows: Rows, average: Average) -> FloatArray:
    """Video-level probabilities (num_videos, K), in the order of the videos.

    Each video is averaged by itself, as VideoClassifier does it, so that both give the same bits.

    Args:
        rows: sorted by video.
        average: of the views' "probs" or "logits".
    """
    own = rows if rows.is_own.all() else rows[rows.is_own]
    starts = np.unique(own.views[:, VIDEO], return_index=True)[1].tolist()
    probs = np.empty((len(starts), rows.logits.shape[1]), np.float32)
    for row, (start, stop) in enumerate(pairwise([*starts, len(own)])):
        probs[row] = average_views(torch.tensor(own.logits[start:stop]), average).numpy()
    return probs


def center_rows(rows: Rows, center_view: int | None) -> NDArray[np.bool_]:
    """Which rows (N,) are the one centre view of their video.

    Args:
        rows: of complete videos.
        center_view: see About.
    """
    views = rows.views
    wanted: NDArray[np.bool_] = views[:, VIEW] == (
        views[:, NUM_VIEWS] - 1 if center_view == -1 else -1 if center_view is None else center_view
    )
    return wanted


def ranks_of(rows: Rows, probs: FloatArray, center_view: int | None) -> dict[str, Ranks]:
    """The labels' ranks at each of LEVELS, empty where a level is not there.

    center: the one centre view. clip: each view that is averaged. video: their average.
    """
    views = rows.views
    labels = views[np.unique(views[:, VIDEO], return_index=True)[1], LABEL]
    levels = {"center": center_rows(rows, center_view), "clip": rows.is_own & (views[:, CLIP] != FUSED_CLIP)}
    ranks = {name: label_ranks(rows.logits[which], views[which, LABEL]) for name, which in levels.items()}
    return {**ranks, "video": label_ranks(probs, labels)}


def accuracies(ranks: dict[str, Ranks], coverage: float) -> dict[str, float | None]:
    """top1 and top5 of each level, in [0, 1]; for names with `_all` the views of unscored videos count as wrong."""
    found: dict[str, float | None] = {}
    for suffix, share in (("", 1.0), ("_all", coverage)):
        for level in LEVELS:
            for k in (1, 5):
                values = ranks[level]
                top = float((values < k).mean()) * share if len(values) else None
                found[f"{level}_top{k}{suffix}"] = None if top is None else round(top, 6)
    return found


def summarize(scores: Scores) -> dict[str, Any]:
    """The content of results.json: accuracies in [0, 1] and everything that made them.

    Accuracies are over the scored videos; for those that end in `_all` a video that was not scored counts as wrong.
    """
    about, probs = scores.about, video_probs(scores.rows, scores.about.average)
    ranks = ranks_of(scores.rows, probs, about.center_view)
    recalls = [row["video_top1"] for row in per_class(scores, probs, ranks) if row["video_top1"] is not None]
    listed = Counter(scores.labels)
    return {
        "protocol": about.protocol,
        "average": about.average,
        "num_videos": len(scores.paths),
        "num_scored": len(scores.scored),
        "coverage": scores.coverage,
        **accuracies(ranks, scores.coverage),
        "mean_class_accuracy": round(float(np.mean(recalls)), 6) if recalls else None,
        "chance": 1 / len(scores.class_names),
        "majority_baseline": max(listed.values()) / len(scores.paths),
        "calibration": calibration(probs, scores.scored_labels),
        "most_confused": most_confused(scores, probs)[:NUM_CONFUSED],
        "failed": [{"path": scores.paths[video], "error": why} for video, why in scores.unscored.items()],
        "class_names": list(scores.class_names),
        **{name: value for name, value in about.to_dict().items() if name not in ("protocol", "average")},
    }


def per_class(scores: Scores, probs: FloatArray, ranks: dict[str, Ranks]) -> list[dict[str, Any]]:
    """For each class: its videos, how many were scored, accuracies in [0, 1], and what it was most often taken for."""
    labels, predicted = scores.scored_labels, probs.argmax(1)
    listed, views = Counter(scores.labels), scores.rows.views
    clip_labels = views[scores.rows.is_own & (views[:, CLIP] != FUSED_CLIP), LABEL]
    table = []
    for number, name in enumerate(scores.class_names):
        ours = labels == number
        levels = {"clip": ranks["clip"][clip_labels == number], "video": ranks["video"][ours]}
        wrong = Counter(predicted[ours & (predicted != number)].tolist()).most_common()
        best = min(wrong, key=lambda pair: (-pair[1], pair[0]))[0] if wrong else None
        table.append(
            {
                "class": name,
                "videos": listed[number],
                "scored": int(ours.sum()),
                **{f"{k}_top1": round(float((v < 1).mean()), 6) if len(v) else None for k, v in levels.items()},
                "most_confused_with": None if best is None else scores.class_names[best],
            }
        )
    return table


def calibration(probs: FloatArray, labels: NDArray[Any]) -> dict[str, Any] | None:
    """How far the probability of the predicted class can be believed; None without videos.

    The expected calibration error (Guo et al., ICML 2017) over NUM_BINS equal bins of confidence, in [0, 1], and the
    bins that have videos; a bin has its upper end.
    """
    if len(probs) == 0:
        return None
    confidence, is_right = probs.max(1).astype(np.float64), probs.argmax(1) == labels
    places = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    bins, ece = [], 0.0
    for place in np.unique(places).tolist():
        inside = places == place
        mean, right = float(confidence[inside].mean()), float(is_right[inside].mean())
        ece += abs(mean - right) * int(inside.sum()) / len(probs)
        ends = {"from": round(place / NUM_BINS, 4), "to": round((place + 1) / NUM_BINS, 4)}
        bins.append({**ends, "videos": int(inside.sum()), "confidence": round(mean, 4), "accuracy": round(right, 4)})
    return {"ece": round(ece, 4), "bins": bins}


def most_confused(scores: Scores, probs: FloatArray) -> list[dict[str, Any]]:
    """Which class was taken for which other one and how often, the most frequent first."""
    pairs = Counter(zip(scores.scored_labels.tolist(), probs.argmax(1).tolist(), strict=True))
    wrong = sorted(((-count, *pair) for pair, count in pairs.items() if pair[0] != pair[1]))
    names = scores.class_names
    return [{"true": names[true], "predicted": names[other], "count": -count} for count, true, other in wrong]


@dataclass(frozen=True)
class Mistake:
    """A video whose prediction is wrong.

    Attributes:
        video: its place in the list.
        path: its file.
        label: its class.
        ranked: the most probable classes with their probabilities, at most five.
    """

    video: int
    path: str
    label: str
    ranked: tuple[tuple[str, float], ...]


def worst_mistakes(scores: Scores, num_videos: int) -> list[Mistake]:
    """The wrong predictions that the network was most certain of."""
    probs, labels, names = video_probs(scores.rows, scores.about.average), scores.scored_labels, scores.class_names
    wrong = np.flatnonzero(probs.argmax(1) != labels)
    found = []
    for row in wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:num_videos].tolist():
        best = np.argsort(-probs[row], kind="stable")[:5].tolist()
        video = int(scores.scored[row])
        ranked = tuple((names[place], float(probs[row, place])) for place in best)
        found.append(Mistake(video, scores.paths[video], names[labels[row]], ranked))
    return found


def write_results(scores: Scores, folder: Path) -> list[Path]:
    """Writes results.json and per_class.csv; returns the paths."""
    text = json.dumps(summarize(scores), indent=2, ensure_ascii=False) + "\n"
    probs = video_probs(scores.rows, scores.about.average)
    table = io.StringIO()
    rows = csv.DictWriter(table, ["class", "videos", "scored", "clip_top1", "video_top1", "most_confused_with"])
    rows.writeheader()
    rows.writerows(per_class(scores, probs, ranks_of(scores.rows, probs, scores.about.center_view)))
    return [write_text(folder / "results.json", text), write_text(folder / "per_class.csv", table.getvalue())]
