"""Other numbers from the same scores: fewer views, another average, some of the classes, several networks at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from a2video.data.protocols import Average
from a2video.data.video_list import read_class_names
from a2video.data.views import EXTRA_CLIP
from a2video.errors import InputError
from a2video.provenance import common_folder
from a2video.results import center_rows, label_ranks, video_probs
from a2video.scores import CLIP, COLUMNS, CROP, FUSED_CLIP, LABEL, NUM_VIEWS, VIDEO, VIEW, Rows, Scores

TINY = 1e-38  # instead of a probability of 0, whose logarithm no file may hold


def even_choice(num_chosen: int, num_clips: int) -> list[int]:
    """Which of the clips 0, 1, ... to take: evenly from the first to the last, or the middle one.

    Of 10: 4 are [0, 3, 6, 9], exactly the clips that a test with 4 takes; 3 are [0, 4, 9], the nearest to those; 1 is
    [4]. The clips agree exactly where num_clips - 1 is a multiple of num_chosen - 1.
    """
    if num_chosen == 1:
        return [(num_clips - 1) // 2]
    return [place * (num_clips - 1) // (num_chosen - 1) for place in range(num_chosen)]


def choose_views(scores: Scores, protocol: str) -> Scores:
    """The scores of some of the views.

    Args:
        scores: with more views.
        protocol: "center" for the one centre view, or "NxM" for N clips (see even_choice) of M crops: all, or the
            middle one of 3.

    Raises:
        InputError: these views are not there.
    """
    if protocol == "center":
        return _center(scores)
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", protocol)
    if found is None:
        raise InputError(f"--protocol {protocol!r} is neither `center` nor N x M as in 10x3")
    num_clips, num_crops = int(found[1]), int(found[2])
    had_clips, had_crops = _grid(scores)
    if num_clips > had_clips or not (num_crops == had_crops or (num_crops, had_crops) == (1, 3)):
        raise InputError(
            f"--protocol {protocol} is not to be had from {had_clips} clips x {had_crops} crops: take at most "
            f"{had_clips} clips, and {had_crops} crops{' or 1' * (had_crops == 3)}"
        )
    if (num_clips, num_crops) == (had_clips, had_crops):
        return scores
    clips = even_choice(num_clips, had_clips)
    crops = list(range(had_crops)) if num_crops == had_crops else [1]
    views, is_center = scores.rows.views, center_rows(scores.rows, scores.about.center_view)
    is_own = np.isin(views[:, CLIP], clips) & np.isin(views[:, CROP], crops)
    is_chosen = is_own | (is_center & ~scores.rows.is_own)  # an extra centre view stays
    places = views[is_chosen].copy()
    places[:, CLIP] = np.searchsorted(clips, places[:, CLIP]) - (places[:, CLIP] == EXTRA_CLIP)
    places[:, CROP] = np.searchsorted(crops, places[:, CROP])
    first_video = is_chosen & (views[:, VIDEO] == views[0, VIDEO])
    center = np.flatnonzero(is_center[first_video]).tolist()
    shown = f"clips {', '.join(map(str, clips))}; crops {', '.join(map(str, crops))}"
    name = f"{num_clips} x {num_crops} ({shown}) of the views of"
    rows = Rows(places, scores.rows.logits[is_chosen])
    return _with_views(scores, rows, f"{name}: {scores.about.protocol}", center[0] if center else None)


def _center(scores: Scores) -> Scores:
    is_center = center_rows(scores.rows, scores.about.center_view)
    if not is_center.any():
        raise InputError(f"the one centre view was not scored by the protocol: {scores.about.protocol}")
    rows = scores.rows[is_center]
    views = rows.views.copy()
    views[:, CLIP] = 0  # an ordinary view now
    views[:, CROP] = 0
    return _with_views(scores, Rows(views, rows.logits), f"the one centre view of: {scores.about.protocol}", 0)


def _grid(scores: Scores) -> tuple[int, int]:
    """Clips and crops of each video.

    Raises:
        InputError: they differ between videos, or it has none.
    """
    rows = scores.rows
    own = rows.views[rows.is_own & (rows.views[:, CLIP] != FUSED_CLIP)]
    videos, counts = np.unique(own[:, VIDEO], return_counts=True)
    if len(videos) == 0:
        raise InputError("there are no clips to choose from: no video was scored, or these are fused scores")
    num_clips, num_crops = int(own[:, CLIP].max()) + 1, int(own[:, CROP].max()) + 1
    if (counts != num_clips * num_crops).any():
        raise InputError("the videos have different numbers of clips: --protocol center is all one can choose")
    return num_clips, num_crops


def _with_views(scores: Scores, rows: Rows, protocol: str, center_view: int | None) -> Scores:
    """The same videos with these rows alone, sorted by video and view, whose views are numbered anew."""
    views = rows.views.copy()
    _, first, counts = np.unique(views[:, VIDEO], return_index=True, return_counts=True)
    views[:, VIEW] = np.arange(len(views)) - np.repeat(first, counts)
    views[:, NUM_VIEWS] = np.repeat(counts, counts)
    about = replace(scores.about, protocol=protocol, center_view=center_view)
    return replace(scores, about=about, rows=Rows(views, rows.logits))


def with_average(scores: Scores, average: Average) -> Scores:
    """The same with the views' probabilities averaged, or their logits."""
    if average == scores.about.average:
        return scores
    words = {"probs": "mean of probabilities", "logits": "mean of logits"}
    protocol = f"{words[average]} instead of: {scores.about.protocol}"
    return replace(scores, about=replace(scores.about, average=average, protocol=protocol))


def with_classes(scores: Scores, names: Sequence[str]) -> Scores:
    """The videos of some classes, decided among these classes alone: the softmax is over their logits.

    Raises:
        InputError: a name is no class or is there twice, there are none, or no listed video is of them.
    """
    unknown = [name for name in names if name not in scores.class_names]
    if unknown or not names or len(set(names)) < len(names):
        what = f"{unknown[0]!r} is none of the" if unknown else "expected different names of the"
        raise InputError(
            f"--classes: {what} {len(scores.class_names)} classes ({', '.join(scores.class_names[:5])}...)"
        )
    columns = [scores.class_names.index(name) for name in names]
    label_of = {old: new for new, old in enumerate(columns)}
    kept = [video for video, label in enumerate(scores.labels) if label in label_of]
    if not kept:
        raise InputError(f"--classes: no video of {scores.about.list} is of these {len(names)} classes")
    place_of = {video: place for place, video in enumerate(kept)}
    rows = scores.rows[np.isin(scores.rows.views[:, VIDEO], kept)]
    views = rows.views.copy()
    views[:, VIDEO] = [place_of[video] for video in views[:, VIDEO].tolist()]
    views[:, LABEL] = [label_of[label] for label in views[:, LABEL].tolist()]
    about = scores.about
    return Scores(
        replace(about, protocol=f"{len(names)} of {len(scores.class_names)} classes, {about.protocol}"),
        tuple(names),
        tuple(scores.paths[video] for video in kept),
        tuple(label_of[scores.labels[video]] for video in kept),
        Rows(views, np.ascontiguousarray(rows.logits[:, columns])),
        {place_of[video]: why for video, why in scores.unscored.items() if video in place_of},
    )


def fuse(several: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    """Late fusion: the weighted mean of the video-level probabilities of several scores of the same videos.

    It has one row for each video that all have scored, whose logits are the logarithms of its probabilities. There are
    no clip-level numbers.

    Args:
        several: each with its own views and average.
        weights: one each, not negative; equal when None.

    Raises:
        InputError: the videos, labels or classes are not the same, or the weights are wrong.
    """
    shares = np.full(len(several), 1.0) if weights is None else np.array(weights, np.float64)
    if len(shares) != len(several) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise InputError(f"--weights: expected {len(several)} numbers from 0 up that are not all 0, got {weights}")
    shares /= shares.sum()
    first = several[0]
    names = [_relative_paths(scores) for scores in several]
    labels = dict(zip(names[0], first.labels, strict=True))
    for other, paths in zip(several[1:], names[1:], strict=True):
        if other.class_names != first.class_names:
            raise InputError(f"{other.about.list} and {first.about.list} were tested with different classes")
        if dict(zip(paths, other.labels, strict=True)) != labels:
            raise InputError(
                f"only scores of the same videos can be fused, but {other.about.list} and {first.about.list} differ: "
                "for the mean over several lists use `a2video compare --mean`"
            )
    probs = [
        dict(
            zip(
                (paths[video] for video in scores.scored),
                video_probs(scores.rows, scores.about.average),
                strict=True,
            )
        )
        for scores, paths in zip(several, names, strict=True)
    ]
    unscored = {
        paths[video]: why
        for scores, paths in zip(several, names, strict=True)
        for video, why in scores.unscored.items()
    }
    kept = [(video, path) for video, path in enumerate(names[0]) if path not in unscored]
    logits = np.empty((len(kept), len(first.class_names)), np.float32)
    views = np.zeros((len(kept), len(COLUMNS)), np.int32)
    for row, (video, path) in enumerate(kept):
        mean = sum(share * one[path].astype(np.float64) for share, one in zip(shares, probs, strict=True))
        logits[row] = np.log(np.maximum(mean, TINY))
        views[row, [VIDEO, LABEL, NUM_VIEWS, CLIP]] = video, labels[path], 1, FUSED_CLIP
    about = first.about
    for other in several[1:]:
        about = about.and_also(other.about)
    protocols = "; ".join(f"{share:.3g} x [{one.about.protocol}]" for share, one in zip(shares, several, strict=True))
    joined: dict[str, Any] = {
        name: " + ".join(getattr(one.about, name) for one in several)
        for name in ("checkpoint", "checkpoint_sha256", "reader", "precision")
    }
    about = replace(about, protocol=f"late fusion of {protocols}", average="probs", center_view=None, **joined)
    reasons = {video: unscored[path] for video, path in enumerate(names[0]) if path in unscored}
    return replace(first, about=about, rows=Rows(views, logits), unscored=reasons)


def _relative_paths(scores: Scores) -> list[str]:
    """Of the videos, from the folder that all have in common: the same wherever they lie."""
    folder = common_folder(scores.paths)
    return [os.path.relpath(path, folder) for path in scores.paths]


def accuracy_by_num_clips(scores: Scores) -> list[tuple[int, float]]:
    """Video-level top-1 in [0, 1] with 1, 2, ... clips of all crops, see even_choice."""
    curve = []
    for num_clips in range(1, _grid(scores)[0] + 1):
        chosen = choose_views(scores, f"{num_clips}x{_grid(scores)[1]}")
        ranks = label_ranks(video_probs(chosen.rows, scores.about.average), scores.scored_labels)
        curve.append((num_clips, round(float((ranks < 1).mean()), 6)))
    return curve


def class_choice(text: str) -> tuple[str, ...]:
    """Class names from a .txt file with one on each line, or from a text with commas between them."""
    return read_class_names(text) if Path(text).is_file() else tuple(name.strip() for name in text.split(","))
