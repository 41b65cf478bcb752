"""What the programs of this folder share: reading the list, its labels, writing tables, common options."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import CONTEXT

from a2video.data.video_list import NO_LABEL, read_video_list
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
    CONTEXT.set_forkserver_preload(["a2video.data.pyav_reader"])
    try:
        sys.exit(1 if work() else 0)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped; run it again to go on.", file=sys.stderr)
        sys.exit(130)


@dataclass(frozen=True)
class Listed:
    """One video of a list: its file, its class (None in a list without labels), and its name in tables."""

    path: Path
    label: str | None
    name: str


def read_list(source: str, root: Path | None) -> list[Listed]:
    """The videos, of which some may be missing; raises InputError.

    They are named from `root` on; without it from the list's folder on, or, if all lie elsewhere, from the folder on
    that they have in common.
    """
    videos = read_video_list(source, root, allow_missing=True)
    paths = [absolute(Path(path)) for path in videos.paths]
    if root is None:
        whole = Path(source)
        file = whole if whole.exists() else Path(source.rpartition("#")[0])  # of FILE#split
        start = absolute(file if file.is_dir() else file.parent)
        if not any(path.is_relative_to(start) for path in paths):
            start = Path(os.path.commonpath([path.parent for path in paths]))
    else:
        start = absolute(root)
    listed = []
    for path, label in zip(paths, videos.labels, strict=True):
        name = (path.relative_to(start) if path.is_relative_to(start) else path).as_posix()
        listed.append(Listed(path, None if label == NO_LABEL else videos.class_names[label], name))
    return listed


def why_unusable(path: Path) -> str | None:
    """What is wrong with a video that needs no look inside."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8, which lists cannot hold; rename it"
    if not path.exists():
        return "does not exist"
    return None if path.is_file() else "is not a file"


def absolute(path: Path) -> Path:
    """Without `..`, but with its links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def reason_of(reason: str, path: Path) -> str:
    """An error's text without the video's name, which has a column of its own."""
    return reason.removeprefix(f"{path}: ")


def write_list(out: Path, videos: Sequence[Listed], names: dict[Path, str]) -> None:
    """Writes list.csv of those videos that have a name, in their order and with their labels."""
    has_labels = any(video.label is not None for video in videos)
    rows = [[names[video.path], *([video.label] if has_labels else [])] for video in videos if video.path in names]
    write_table(out / "list.csv", ["path", "label"] if has_labels else ["path"], rows)


def write_reasons(path: Path, videos: Sequence[Listed], reasons: dict[Path, str]) -> None:
    """Writes a table (path, reason) of those videos that have a reason, in their order."""
    rows = [[video.name, reasons[video.path]] for video in videos if video.path in reasons]
    write_table(path, ["path", "reason"], rows)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file, which appears whole or not at all; what is not UTF-8 in a name is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".part-{path.name}")
    with unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
    unfinished.replace(path)


def make_folder(out: Path, source: str) -> None:
    """Makes the output folder.

    Raises:
        InputError: it cannot be made; or it lies in the folder of videos, where it would become a class; or the list
            that is read would be overwritten.
    """
    given = Path(source)
    if given.is_dir() and out.resolve().is_relative_to(given.resolve()):
        raise InputError(f"--out {out} lies in the folder of videos {source}: choose a folder elsewhere")
    if given.is_file() and given.resolve() == (out / "list.csv").resolve():
        raise InputError(f"--list {source} would be overwritten: choose another --out")
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
