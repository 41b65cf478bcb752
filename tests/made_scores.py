"""Scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2video.scores import About, Rows, Scores

ABOUT = About(
    protocol="2 clips x 1 crop",
    average="probs",
    center_view=None,
    seed=0,
    preprocessing={"num_clips": 2},
    checkpoint="best.ckpt",
    checkpoint_sha256="c0",
    list="test.csv",
    folder="/videos",
    list_sha256="11",
    reader="a.Reader",
    precision="32-true",
    channels_last=False,
    test_batch_size=16,
    versions={"torch": "2"},
    commit=None,
    hardware="CPU",
)


def made_scores(
    probs: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[int],
    num_crops: int = 1,
    extra_center: bool = False,
    failed: dict[int, str] | None = None,
    names: Sequence[str] = "abcdefgh",
    **about: object,
) -> Scores:
    """Scores of videos v0, v1, ... from the views' probabilities [video][view][class]; no views for failed ones.

    Args:
        probs: logits are their logarithms.
        labels: of the videos.
        num_crops: view = clip * num_crops + crop.
        extra_center: the last view is the extra centre view.
        failed: see Scores.of.
        names: of the classes.
        about: changes to ABOUT.
    """
    views, logits = [], []
    for video, (of_video, label) in enumerate(zip(probs, labels, strict=True)):
        for view, vector in enumerate(of_video):
            is_extra = extra_center and view == len(of_video) - 1
            clip, crop = (-1, 0) if is_extra else divmod(view, num_crops)
            views.append((video, label, view, len(of_video), clip, crop, 10 * clip, 10 * clip + 9))
            logits.append(np.log(vector))
    num_classes = len(logits[0])
    made = Rows(np.array(views, np.int32), np.array(logits, np.float32))
    values = {**ABOUT.to_dict(), "center_view": -1 if extra_center else None, **about}
    paths = [f"v{video}.mp4" for video in range(len(labels))]
    return Scores.of(About(**values), names[:num_classes], paths, labels, made, failed or {})
