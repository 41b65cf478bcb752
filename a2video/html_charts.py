"""Where the lines, bars and dots of report.html go: coordinates only, the template draws them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEFT, RIGHT, TOP, BOTTOM = 46.0, 346.0, 24.0, 204.0  # of every chart's axes, in its own pixels
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)  # between the lines of a grid
MAX_LINES = 6
RIGHT_RGB, WRONG_RGB = (59, 130, 246), (234, 88, 12)  # seen on white and on black
FAINTEST = 0.45  # opacity of a cell with any video in it
MAX_TABLE_CLASSES = 12  # a confusion matrix with more is a picture

Counts = NDArray[np.int64]


def percent(share: float | None) -> str:
    """As shown everywhere: 84.6%, or a dash for what there is not."""
    return "–" if share is None else f"{share:.1%}"


def data_uri(content: bytes, kind: str) -> str:
    """An image as part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def curve_chart(points: Sequence[tuple[int, float]], num_crops: int) -> dict[str, Any]:
    """A line through (number of clips, accuracy) points, of which there are at least two."""
    values = [value for _, value in points]
    lines = grid_lines(min(values), max(values))
    low, high = lines[0], lines[-1]
    last = points[-1][0]

    def x_of(num_clips: int) -> float:
        return round(LEFT + 14 + (RIGHT - LEFT - 28) * (num_clips - 1) / (last - 1), 1)

    def y_of(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)

    dots = [(x_of(num), y_of(value), f"{num} clips: {percent(value)}") for num, value in points]
    step = -(-last // 10)
    return {
        **_axes("clips of each video"),
        "y_ticks": [(y_of(value), f"{value:.0%}") for value in lines],
        "x_ticks": [(x_of(num), num) for num, _ in points if num == 1 or num % step == 0],
        "line": " ".join(f"{x},{y}" for x, y, _ in dots),
        "points": dots,
        "labels": [
            (dots[place][0] + shift, dots[place][1] - 10, percent(values[place]), anchor)
            for place, shift, anchor in ((0, -8, "start"), (-1, 8, "end"))
        ],
        "crops": f"{num_crops} crops of each" if num_crops > 1 else "one crop of each",
        "table": [(num, percent(value)) for num, value in points],
    }


def grid_lines(low: float, high: float) -> list[float]:
    """Round values, at most MAX_LINES, from at most `low` to at least `high`, both in [0, 1]; at least two."""
    for step in STEPS:
        first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
        if last == first:
            first, last = (first - 1, last) if last * step >= 1 else (first, last + 1)
        if last - first < MAX_LINES:
            break
    return [round(place * step, 2) for place in range(first, last + 1)]


def reliability_chart(calibration: dict[str, Any]) -> dict[str, Any]:
    """Bars of the accuracy in each bin of confidence; see results.calibration."""
    width, height = RIGHT - LEFT, BOTTOM - TOP
    most = max(found["videos"] for found in calibration["bins"])
    bars, dots, table = [], [], []
    for found in calibration["bins"]:
        ends = f"{found['from']:.0%} to {found['to']:.0%}"
        text = f"confidence {ends}: {found['videos']} videos, {percent(found['accuracy'])} right"
        x, y = LEFT + width * found["from"], BOTTOM - height * found["accuracy"]
        opacity = 0.2 + 0.5 * found["videos"] / most
        sizes = (x + 1, y, width * (found["to"] - found["from"]) - 2, BOTTOM - y, opacity)
        bars.append((*(round(size, 2) for size in sizes), text))
        dots.append((round(LEFT + width * found["confidence"], 1), round(y, 1), text))
        table.append((ends, found["videos"], percent(found["confidence"]), percent(found["accuracy"])))
    ticks = (0, 0.2, 0.4, 0.6, 0.8, 1)
    return {
        **_axes("confidence: probability of the predicted class"),
        "y_ticks": [(BOTTOM - height * value, f"{value:.0%}") for value in ticks],
        "x_ticks": [(LEFT + width * value, f"{value:.0%}") for value in ticks],
        "bars": bars,
        "points": dots,
        "ece": calibration["ece"],
        "table": table,
    }


def _axes(x_name: str) -> dict[str, Any]:
    return {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM, "x_name": x_name}


def confusion_chart(counts: Counts) -> dict[str, Any]:
    """The matrix as rows of (count, share of the row) while it is small, else as a picture of one pixel a cell.

    Args:
        counts: (K, K), of videos by true and predicted class.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(counts) <= MAX_TABLE_CLASSES:
        rows = zip(counts.tolist(), (shares * 0.65).round(3).tolist(), strict=True)
        return {"table": [list(zip(*row, strict=True)) for row in rows], "picture": None}
    pixels = np.zeros((*counts.shape, 4), np.uint8)
    pixels[..., :3] = WRONG_RGB
    pixels[np.diag_indices(len(counts))] = (*RIGHT_RGB, 0)
    pixels[..., 3] = np.where(counts > 0, 255 * (FAINTEST + (1 - FAINTEST) * np.sqrt(shares)), 0).round()
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return {"table": None, "picture": data_uri(buffer.getvalue(), "png")}
