"""Several results side by side, and the mean over splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2video.errors import InputError

COLUMNS = {
    "center top-1": "center_top1",
    "clip top-1": "clip_top1",
    "clip top-5": "clip_top5",
    "video top-1": "video_top1",
    "video top-5": "video_top5",
    "over all": "video_top1_all",
    "scored": "",
    "chance": "chance",
    "majority": "majority_baseline",
}


def comparison_table(results: Sequence[Path], with_mean: bool = False) -> str:
    """The numbers of several results.json files (or their folders) side by side, and their protocols, as text.

    Args:
        results: the files, or their folders.
        with_mean: a last line with the mean of each number, as over the three splits of UCF-101.

    Raises:
        InputError: a file does not exist or is no results.json; a mean is wanted of tests by different protocols.
    """
    runs = [_read(path) for path in results]
    lines = [["run", *COLUMNS], *([str(file.parent), *_cells(content)] for file, content in runs)]
    if with_mean:
        lines.append([f"mean of {len(runs)}", *_cells(_mean([content for _, content in runs]))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([*rows, *(f"{file.parent}: {one_line(content['protocol'])}" for file, content in runs)])


def one_line(text: str) -> str:
    """Without what moves a terminal's cursor or cannot be printed."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _read(path: Path) -> tuple[Path, dict[str, Any]]:
    file = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _cells(content)
        if not isinstance(content["protocol"], str):
            raise TypeError("its protocol is no text")
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: give the results.json that `a2video test` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a results.json of `a2video test`: {error!r}") from error
    return file, content


def _cells(content: dict[str, Any]) -> list[str]:
    cells = []
    for name in COLUMNS.values():
        if not name:
            cells.append(f"{content['num_scored']}/{content['num_videos']}")
            continue
        says_nothing = content[name] is None or (name.endswith("5") and len(content["class_names"]) <= 5)
        cells.append("-" if says_nothing else f"{content[name]:.1%}")
    return cells


def _mean(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number; the counts of videos are summed up."""
    protocols = list(dict.fromkeys(content["protocol"] for content in contents))
    if len(protocols) > 1:
        raise InputError(f"no mean of tests by different protocols: found {protocols[0]!r} and {protocols[1]!r}")
    mean: dict[str, Any] = {"class_names": contents[0]["class_names"]}
    for name in COLUMNS.values():
        values = [content[name] for content in contents if name]
        mean[name] = None if None in values or not values else sum(values) / len(values)
    return mean | {name: sum(content[name] for content in contents) for name in ("num_scored", "num_videos")}
