"""Scores whose report.html the tests look at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from conftest import moving_square, write_video
from made_scores import made_scores

from a2video.data.transforms import Preprocessing
from a2video.scores import Scores

SCORED_AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script></style><h1>&amp;\u202e\x00")
PROBS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the predicted class, in the order of the videos


def small_page(folder: Path) -> Scores:
    """Three classes with hostile names: five videos scored, one damaged, one that has gone after the test.

    Videos 0 to 4 have labels 0, 0, 1, 1, 1 and are taken for 0, 1, 1, 0, 2; 3 has gone.
    """
    probs = []
    for predicted, share in zip((0, 1, 1, 0, 2), PROBS, strict=True):
        vector = np.full(3, (1 - share) / 2)
        vector[predicted] = share
        probs.append([vector.tolist()] * 2)
    reason = "<b onclick=alert(3)>no frame</b>"
    scores = made_scores([*probs, []], [0, 0, 1, 1, 1, 2], failed={5: f"v5.mp4: {reason}"}, names=HOSTILE)
    paths = [str(folder / f"<i>{number}<i>.mp4") for number in range(6)]
    for number, path in enumerate(paths):
        if number != 3:
            write_video(Path(path), moving_square(1, seed=number))
    about = replace(
        scores.about, preprocessing=Preprocessing(4, 2, 32, 24, 2, 1).to_dict(), checkpoint=f"'><b>{'x' * 90}.ckpt"
    )
    return replace(scores, paths=tuple(paths), about=about)


def large_page() -> Scores:
    """400 classes of two videos: all are right but the second ones of every tenth class, each taken for class 7."""
    labels = [video // 2 for video in range(800)]
    predicted = [7 if video % 20 == 1 else label for video, label in enumerate(labels)]
    probs = np.full((800, 2, 400), 0.5 / 399)
    for video, place in enumerate(predicted):
        probs[video, :, place] = 0.5
    probs[:3, 0, 9] = 0.9  # of the first clip only
    names = [f"class {number:03}" for number in range(400)]
    return made_scores(probs.tolist(), labels, names=names)
