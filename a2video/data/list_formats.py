"""Lists of no particular data set: CSV files, lines without a header, folders; and what every list is parsed to."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from a2video.data.folders import VIDEO_SUFFIXES, Folders, join, join_all, suffix_of
from a2video.data.readers import IMAGE_SUFFIXES
from a2video.errors import InputError

SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
_SUFFIX = "|".join(sorted(suffix[1:] for suffix in SUFFIXES))
_SEPARATOR = r"(?:[ \t]*,[ \t]*|[ \t]+)"
_PATH_LABEL = re.compile(rf"(.*\.(?:{_SUFFIX})){_SEPARATOR}([^,\s].*)", re.IGNORECASE | re.DOTALL)
_QUOTED_PATH_LABEL = re.compile(rf'"((?:[^"]|"")+)"(?:{_SEPARATOR}([^,\s].*))?', re.DOTALL)
_SEVERAL_NUMBERS = re.compile(r"\d+(?:[ \t,]+\d+)+")


@dataclass
class Listing:
    """What a list says: one place, path and label for each video.

    Columns, not a tuple for each video, for Python's garbage collector would look through those again and again.

    Attributes:
        places: for messages: "train.csv line 7" or a folder.
        paths: as they stand in the list.
        labels: names, or numbers in words; None throughout for a list without labels.
        class_names: all classes in order, where the list says so itself; otherwise they follow from the labels.
    """

    places: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    remedy: ClassVar[str] = "correct the list, or set `root` to the folder that its paths start from"
    is_complete: ClassVar[bool] = False
    """Whether class_names are the classes of the whole data set, so that other given classes are a mistake."""

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, place: str, path: str, label: str | None) -> None:
        """Appends one video."""
        self.places.append(place)
        self.paths.append(path)
        self.labels.append(label)

    def locate(self, root: str, folders: Folders) -> tuple[list[str], list[int]]:
        """Where each video is, or should be, when relative paths start from `root`, and which indices are missing."""
        paths = join_all(root, self.paths)
        return paths, [index for index, path in enumerate(paths) if not folders.has_file(path)]


class FolderListing(Listing):
    """Videos found in a folder: their paths start from nowhere else."""

    def locate(self, root: str, folders: Folders) -> tuple[list[str], list[int]]:
        """Where they were found, whatever `root` is."""
        return super().locate(".", folders)


def read_text(path: Path) -> str:
    """The text of a list, with "\\n" at the line ends.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a text file: {error}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path} line {line}: found a NUL byte, which no path and no label holds: give a text file")
    return text


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return text.lstrip().partition("\n")[0].rstrip()


def header_of(text: str) -> list[str]:
    """The first line's fields."""
    try:
        return [name.strip() for name in next(csv.reader([first_line(text)]), [])]
    except csv.Error:
        return []


def rows_of(path: Path, text: str, width: int) -> Iterator[tuple[str, list[str]]]:
    """The rows below the header with their places, fields stripped, blank lines left out.

    Raises:
        InputError: a row is no CSV or has not `width` fields.
    """
    rows, name, header = csv.reader(io.StringIO(text)), str(path), ""
    try:
        for row in rows:
            values = list(map(str.strip, row))
            if not any(values):
                continue
            if not header:
                header = ",".join(values)
                continue
            place = f"{name} line {rows.line_num}"
            if len(values) != width:
                raise InputError(f"{place}: expected {header[:200]}, found {','.join(row)[:200]!r}")
            yield place, values
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num}: {error}") from error


def parse_csv(path: Path, text: str) -> Listing:
    """A CSV file with the header `path,label` or `path`."""
    header = header_of(text)
    listing = Listing()
    for place, values in rows_of(path, text, len(header)):
        if "" in values:
            raise InputError(f"{place}: expected {','.join(header)}, found {','.join(values)[:200]!r}")
        listing.add(place, values[0], values[1] if len(values) > 1 else None)
    return listing


def split_line(line: str) -> tuple[str, str | None] | None:
    """Path and label of a line `path label`, `path,label` or `path`; None if it is no such line.

    The path ends at the last suffix of a video or picture that a separator and a label follow, so that both may hold
    spaces and commas: `a b.mp4 tai chi` is ("a b.mp4", "tai chi"). A line that ends with a suffix is all path.
    """
    if line[:1] == '"' and (match := _QUOTED_PATH_LABEL.fullmatch(line)):
        path, label = match[1].replace('""', '"'), match[2]
        if suffix_of(path) not in SUFFIXES:
            return None
    elif suffix_of(line) in SUFFIXES:
        return line, None
    elif match := _PATH_LABEL.fullmatch(line):
        path, label = match.groups()
    else:
        return None
    if label is not None and len(label) > 1 and label[0] == label[-1] == '"':
        label = label[1:-1].replace('""', '"').strip()
    return path, label


def parse_lines(path: Path, text: str) -> Listing:
    """Lines `path label`, `path,label` (or with a tab), or `path` throughout."""
    listing, name = Listing(), str(path)
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        parts = split_line(line)
        if parts is None or parts[1] == "":
            lines = "a path that ends with a video's suffix such as .mp4, then a space, comma or tab and a label"
            headers = "the header 'path,label' (or 'path' for videos without labels) or Kinetics' header, or "
            raise InputError(
                f"{path} line {number}: expected {'' if listing else headers}{lines}, found {line[:200]!r}"
            )
        listing.add(f"{name} line {number}", *parts)
        if (parts[1] is None) != (listing.labels[0] is None):
            found, other = ("a label", "none") if parts[1] is not None else ("no label", "one")
            raise InputError(
                f"{path} line {number}: found {found} in {line[:200]!r}, but {listing.places[0]} has {other}: give all "
                "videos a label or none"
            )
    if not listing:
        raise InputError(f"{path} is empty: it must name at least one video")
    for label in dict.fromkeys(listing.labels):
        if label and _SEVERAL_NUMBERS.fullmatch(label):
            place = listing.places[listing.labels.index(label)]
            raise InputError(f"{place}: expected one label after the path, found {label[:200]!r}")
    return listing


def parse_class_folders(folder: Path, folders: Folders) -> Listing:
    """A folder with one folder of videos (or pictures) a class; without class folders its own videos, unlabelled."""
    class_folders, loose = folders.visible_folders(str(folder)), folders.videos(str(folder))
    listing = FolderListing()
    if not class_folders:
        for video in loose:
            listing.add(str(folder), join(str(folder), video), None)
        return listing
    if loose:
        raise InputError(f"{folder / loose[0]} lies beside class folders: move it into one of them")
    for name in class_folders:
        place = join(str(folder), name)
        deeper, videos = folders.visible_folders(place), folders.videos(place)
        if deeper:
            raise InputError(
                f"{join(place, deeper[0])} is a folder inside a class folder, where only videos are read: move them"
            )
        if not videos:
            raise InputError(f"class folder {place} has no video and no picture: add some or remove the folder")
        for video in videos:
            listing.add(place, join(place, video), name)
    listing.class_names = tuple(class_folders)
    return listing
