"""What the programs of this folder share: reading the list, its labels, writing tables, common options."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from a2video.data.video_list import NO_LABEL, VideoList, read_video_list
from a2video.errors import InputError


def add_common_options(parser: argparse.ArgumentParser, time_limit_seconds: float) -> None:
    """--list, --root, --out, --workers, --time-limit."""
    parser.add_argument(
        "--list", type=Path, required=True, help="list of videos, or folder of (class folders of) videos"
    )
    parser.add_argument("--root", type=Path, help="folder that the list's paths start from; default: the list's own")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--workers", type=_at_least_one, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=time_limit_seconds,
        metavar="SECONDS",
        help="for each video (%(default)g)",
    )


def run_program(work: Callable[[], int]) -> None:
    """Does the work, which returns the number of bad videos, and ends with the exit status: 0, 1 if some, 2, 130."""
    try:
        sys.exit(1 if work() else 0)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped; run it again to go on.", file=sys.stderr)
        sys.exit(130)


def read_list(source: Path, root: Path | None) -> VideoList:
    """The videos, of which some may be missing; raises InputError."""
    return read_video_list(source, root)


def root_of(source: Path, root: Path | None) -> Path:
    """The folder that names of videos are given from, absolute."""
    return absolute(root or (source if source.is_dir() else source.parent))


def absolute(path: Path) -> Path:
    """Without `..`, but with its links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def name_of(path: Path, root: Path) -> str:
    """The path as tables show it: from `root` on, or absolute where the video lies elsewhere."""
    full = absolute(path)
    return (full.relative_to(root) if full.is_relative_to(root) else full).as_posix()


def reason_of(reason: str, path: Path) -> str:
    """An error's text without the video's name, which has a column of its own."""
    return reason.removeprefix(f"{path}: ")


def list_rows(videos: VideoList, name_of_video: dict[Path, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a list of those videos that have a name, in the order and with the labels of `videos`."""
    has_labels = any(label != NO_LABEL for label in videos.labels)
    rows = []
    for path, label in zip(videos.paths, videos.labels, strict=True):
        if path in name_of_video:
            rows.append([name_of_video[path], *([videos.class_names[label]] if has_labels else [])])
    return ["path", "label"] if has_labels else ["path"], rows


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file, which appears whole or not at all; what is not UTF-8 in a name is escaped."""
    unfinished = path.with_name(f".part-{path.name}")
    with unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
    unfinished.replace(path)


def make_folder(out: Path, source: Path) -> None:
    """Makes the output folder.

    Raises:
        InputError: it cannot be made, or lies in the folder of videos, where it would become one of the classes.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--out {out} lies in the folder of videos {source}: choose a folder elsewhere")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made: {error.strerror}") from error


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text!r}")
    return value
