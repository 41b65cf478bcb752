"""report.html: everything that scores tell, as one page that needs nothing beside itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from a2video.atomic import write_text
from a2video.errors import InputError
from a2video.html_charts import confusion_chart, curve_chart, reliability_chart
from a2video.html_gallery import NUM_MISTAKES, gallery
from a2video.html_page import render, tail, without_controls
from a2video.rescore import accuracy_by_num_clips
from a2video.results import most_confused, per_class, ranks_of, summarize, video_probs, worst_mistakes
from a2video.scores import CROP, FloatArray, Scores

NUM_CONFUSED = 15  # pairs in the page
NUM_UNSCORED = 500  # videos in the page; results.json has all
MAX_REASON = 600  # characters of an error message


def write_html_report(scores: Scores, path: Path, scored_at: datetime) -> Path:
    """Writes the page; reads the videos of the worst mistakes for it, where they still are.

    Args:
        scores: of a test.
        path: of the page.
        scored_at: when that was.

    Raises:
        InputError: the disk is full, or the folder may not be written to.
    """
    return write_text(path, html_report(scores, scored_at))


def html_report(scores: Scores, scored_at: datetime) -> str:
    """The page; see write_html_report. All text in it is escaped, and it may run no script but its own."""
    return render(
        "report.html.jinja",
        ["report.css"],
        ["classes.js", "confusion.js"],
        **_content(scores),
        made=_made(scores, scored_at),
    )


def _content(scores: Scores) -> dict[str, Any]:
    """All but where the scores come from."""
    probs, results = video_probs(scores.rows, scores.about.average), summarize(scores)
    about = scores.about
    centre = "which this protocol does not score" if about.center_view is None else "as in validation"
    unscored = [
        (scores.paths[video], _short(reason.removeprefix(f"{scores.paths[video]}: ")))
        for video, reason in list(scores.unscored.items())[:NUM_UNSCORED]
    ]
    content = {
        "title": f"{tail(about.checkpoint)} on {tail(about.list)}",
        "results": results,
        "class_names": scores.class_names,
        "levels": [
            ("video", "Video level", "All views of a video together:", about.protocol),
            ("clip", "Clip level", "Each view by itself:", about.protocol),
            ("center", "One centre clip", "Its centre crop alone,", centre),
        ],
        "unscored": unscored,
        "num_unlisted": len(scores.unscored) - len(unscored),
        "reliability": reliability_chart(results["calibration"]) if results["calibration"] else None,
        "confusion": None,
        **_curve(scores),
    }
    classes = [
        {
            "name": row["class"],
            "share": row["video_top1"],
            "count": row["scored"],
            "count_text": f"{row['scored']}"
            if row["scored"] == row["videos"]
            else f"{row['scored']} of {row['videos']}",
            "taken_for": row["most_confused_with"] or "–",
        }
        for row in per_class(scores, probs, ranks_of(scores.rows, probs, about.center_view))
    ]
    return content | {"classes": classes} | (_mistakes(scores, probs) if len(probs) else {})


def _mistakes(scores: Scores, probs: FloatArray) -> dict[str, Any]:
    """Of at least one scored video."""
    counts = np.zeros((len(scores.class_names),) * 2, np.int64)
    np.add.at(counts, (scores.scored_labels, probs.argmax(1)), 1)
    cells = [[*map(int, place), int(counts[tuple(place)])] for place in np.argwhere(counts)]
    names = [without_controls(name) for name in scores.class_names]
    data = json.dumps({"names": names, "cells": cells}, separators=(",", ":"))
    for mark in "<>&":  # so that no name ends the element that it stands in
        data = data.replace(mark, f"\\u{ord(mark):04x}")
    return {
        "confusion": {**confusion_chart(counts), "data": Markup(data)},
        "confused": most_confused(scores, probs)[:NUM_CONFUSED],
        "mistakes": list(gallery(worst_mistakes(scores, NUM_MISTAKES), scores.about.preprocessing)),
    }


def _curve(scores: Scores) -> dict[str, Any]:
    try:
        points = accuracy_by_num_clips(scores)
    except InputError as error:
        return {"curve": None, "no_curve": f"There is no curve: {error}."}
    if len(points) == 1:
        return {"curve": None, "no_curve": "There is no curve: one clip of each video was scored."}
    return {"curve": curve_chart(points, int(scores.rows.views[:, CROP].max()) + 1), "no_curve": ""}


def _made(scores: Scores, scored_at: datetime) -> list[tuple[str, str, str]]:
    """Name, value and detail of everything that made the scores."""
    about = scores.about
    p = about.preprocessing
    network_saw = ", ".join(f"{name} {p[name]}" for name in p if name not in ("mean", "std") and p[name] is not None)
    return [
        ("Protocol", about.protocol, ""),
        ("Videos", about.list, f"sha256 {about.list_sha256}"),
        ("Checkpoint", about.checkpoint, f"sha256 {about.checkpoint_sha256}"),
        ("Preprocessing", network_saw, ""),
        ("Commit", about.commit or "not run from a git checkout", ""),
        ("Versions", ", ".join(f"{name} {version}" for name, version in about.versions.items()), ""),
        ("Hardware", f"{about.hardware}, precision {about.precision}", ""),
        ("Reader", about.reader, f"seed {about.seed}"),
        ("Scored", f"{scored_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC", ""),
    ]


def _short(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"
