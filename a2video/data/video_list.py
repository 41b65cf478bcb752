"""Which videos there are and what they show: lists of any known format, checked against the files and the classes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from a2video.data.folders import Folders, exists
from a2video.data.kinetics import is_kinetics, parse_kinetics
from a2video.data.list_formats import (
    Listing,
    first_line,
    header_of,
    parse_class_folders,
    parse_csv,
    parse_lines,
    read_text,
    split_line,
)
from a2video.data.official_lists import parse_hmdb51, parse_ucf101, read_class_index, split_files
from a2video.errors import InputError

NO_LABEL = -1
_LOOKS_NUMERIC = re.compile(r"[-+]?\d+(\.\d*)?")


@dataclass(frozen=True)
class VideoList:
    """Videos with their labels.

    Attributes:
        source: the file or folder the list was read from.
        paths: one video file each; all exist but those of `missing`.
        labels: index into class_names each, or NO_LABEL throughout for a list without labels.
        class_names: the classes in the order of the network's logits.
        missing: the indices of the videos that do not exist.
        num_left_out: how many missing videos the list named before `present` left them out.
    """

    source: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    missing: tuple[int, ...] = ()
    num_left_out: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digest(self) -> str:
        """Differs where videos, their order or labels do; wherever the folder lies that has them all."""
        folder = os.path.commonprefix(self.paths).rpartition(os.sep)[0]  # noqa: RUF071
        rows = "\n".join(f"{label} {path[len(folder) :]}" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256(rows.encode(errors="surrogateescape")).hexdigest()[:16]

    def shared_with(self, other: VideoList) -> list[str]:
        """Our paths that `other` has too, without asking the disk: links are not followed."""
        theirs = set(map(os.path.abspath, other.paths))
        return [path for path in self.paths if os.path.abspath(path) in theirs]  # noqa: PTH100

    def present(self) -> VideoList:
        """The list without its missing videos."""
        missing = set(self.missing)
        kept = [index for index in range(len(self)) if index not in missing]
        paths, labels = tuple(self.paths[i] for i in kept), tuple(self.labels[i] for i in kept)
        left_out = self.num_left_out + len(missing)
        return replace(self, paths=paths, labels=labels, missing=(), num_left_out=left_out)


def read_video_list(
    source: str | Path,
    root: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    allow_missing: bool = False,
    classes_of: str | None = None,
) -> VideoList:
    """Reads a list of videos (or pictures).

    - A CSV file with the header `path,label` or `path`.
    - A file with lines `path label` or `path,label`, without a header, or with a path on each line.
    - An official CSV file of Kinetics. `FILE#val` takes the rows of one split.
    - trainlistNN.txt or testlistNN.txt of UCF-101, with classInd.txt beside it.
    - `FOLDER#train1`: one of the splits of a folder of HMDB-51's split files.
    - A folder with one folder of videos a class, or with videos right in it, which have no labels.

    Labels are class names, or whole numbers from zero (in UCF-101's lists from one, as they come).

    Args:
        source: the list.
        root: the folder that relative paths in a list start from; the list's own folder when None.
        class_names: the classes, in order. When None they are those of the list: in its own order where it has one
            (classInd.txt), else sorted; numbers count from zero.
        allow_missing: keep the videos that do not exist, as VideoList.missing, unless all are missing.
        classes_of: what class_names were taken from, where nobody has said that numbers may stand for them: the list's
            labels must then be these very names. None: numbers count class_names from zero.

    Raises:
        InputError: the list cannot be read, is empty, names a missing video or one twice, or has a label that is no
            class.
    """
    folders = Folders()
    listing, folder = _read_listing(source, folders)
    if not listing:
        raise InputError(f"list {source} is empty: it must name at least one video")
    paths, missing = listing.locate(str(folder if root is None else root), folders)
    if missing and (not allow_missing or len(missing) == len(paths)):
        _refuse_missing(listing, paths, missing)
    if len(set(paths)) < len(paths):
        refuse_repeated(listing, paths)
    if class_names and listing.class_names and listing.is_complete:
        _compare_classes(str(source), listing.class_names, class_names)
    names = tuple(class_names or _names_in(listing))
    return VideoList(str(Path(source)), tuple(paths), _labels(listing, names, classes_of), names, tuple(missing))


def read_class_names(source: str | Path) -> tuple[str, ...]:
    """The classes of a list (see read_video_list), of classInd.txt, or of a .txt file with one class name a line.

    Videos need not exist.

    Raises:
        InputError: the file cannot be read, is empty, or names a class twice.
    """
    path = Path(source)
    if path.name == "classInd.txt":
        names = read_class_index(path)
    elif path.suffix == ".txt" and not _is_list(text := read_text(path)):
        names = tuple(line.strip() for line in text.split("\n") if line.strip())
    else:
        names = _names_in(_read_listing(source, Folders())[0])
    if not names:
        raise InputError(f"{source} names no class: expected labels, or one class name on each line of a .txt file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source} names the class {twice!r} twice")
    return names


def _read_listing(source: str | Path, folders: Folders) -> tuple[Listing, Path]:
    """What the list says, and the folder that it lies in."""
    path, part = Path(source), None
    if "#" in path.name and not exists(str(path)):
        name, _, part = str(path).rpartition("#")
        path = Path(name)
    if not exists(str(path)):
        raise InputError(f"list {source} does not exist: give a file or a folder with one folder for each class")
    if path.is_dir():
        splits = split_files(folders.content(str(path)).files)
        if part is not None and splits:
            return parse_hmdb51(path, part, splits), path
        if splits:
            raise InputError(f"list {path} is a folder of split files such as {min(splits)}: choose with {path}#train1")
        listing = parse_class_folders(path, folders)
    else:
        text = read_text(path)
        if is_kinetics(text):
            return parse_kinetics(path, text).select(str(path), part), path.parent
        listing = _parse_text(path, text)
    if part is not None:
        raise InputError(
            f"list {source} does not exist, and {path} has no splits to choose with #{part}: expected an official "
            "Kinetics CSV or a folder of HMDB-51 split files before the #"
        )
    return listing, path.parent


def _parse_text(path: Path, text: str) -> Listing:
    if header_of(text) in (["path", "label"], ["path"]):
        return parse_csv(path, text)
    if path.suffix == ".txt" and path.with_name("classInd.txt").is_file():
        return parse_ucf101(path, text)
    return parse_lines(path, text)


def _is_list(text: str) -> bool:
    """Whether the text is a list of videos, not of class names."""
    is_csv = header_of(text) in (["path", "label"], ["path"]) or is_kinetics(text)
    return is_csv or split_line(first_line(text)) is not None


def _refuse_missing(listing: Listing, paths: Sequence[str], missing: Sequence[int]) -> None:
    first, num_listed = missing[0], len(paths)
    others = f" (and {len(missing) - 1} more of {num_listed} are missing)" if len(missing) > 1 else ""
    raise InputError(f"{listing.places[first]}: video {paths[first]} does not exist{others}: {listing.remedy}")


def refuse_repeated(listing: Listing, paths: Sequence[str]) -> None:
    """Raises InputError where two lines of a list are the same file."""
    first: dict[str, int] = {}
    for index, path in enumerate(paths):
        file = os.path.normpath(path) if ".." in path else path
        if (earlier := first.setdefault(file, index)) != index:
            ours, theirs = listing.labels[index], listing.labels[earlier]
            labels = "" if ours == theirs else f" with the label {theirs!r}, and has {ours!r} here"
            raise InputError(
                f"{listing.places[index]}: {path} was listed before ({listing.places[earlier]}){labels}: remove one"
            )


def _compare_classes(source: str, ours: Sequence[str], given: Sequence[str]) -> None:
    """Refuses a list of a data set with other classes; the order does not matter, for labels are names."""
    lacking, extra = sorted(set(ours) - set(given)), sorted(set(given) - set(ours))
    if lacking or extra:
        found = f"has the class {lacking[0]!r}, which is none" if lacking else f"lacks {extra[0]!r}, which is one"
        raise InputError(
            f"list {source}: its data set of {len(ours)} classes {found} of the {len(given)} given classes: train and "
            "test with lists of one data set"
        )


def _names_in(listing: Listing) -> tuple[str, ...]:
    """The classes that a list gives when nothing else does."""
    if listing.class_names is not None:
        return listing.class_names
    labels = {label for label in listing.labels if label is not None}
    numeric = sorted(label for label in labels if _LOOKS_NUMERIC.fullmatch(label))
    odd = next((label for label in numeric if not _is_number(label) or label[:-1].startswith("0")), None)
    if numeric and (odd is not None or len(numeric) < len(labels)):
        odd = odd or numeric[0]
        raise InputError(
            f"{_place(listing, odd)}: found the label {odd[:20]!r}: expected class names throughout, or whole numbers "
            "from zero throughout"
        )
    if not numeric:
        return tuple(sorted(labels))
    longest = max(labels, key=len)
    if len(longest) > 9:
        raise InputError(f"{_place(listing, longest)}: expected class numbers from zero, found {longest[:20]}...")
    numbers = {int(label) for label in labels}
    largest = max(numbers)
    if largest > 1000 + 10 * len(listing):
        raise InputError(f"label {largest} would make {largest + 1} classes: expected class numbers from zero")
    if numbers == set(range(1, largest + 1)):
        raise InputError(
            f"{listing.places[0]}: the list's labels are 1 to {largest} and none is 0: expected class numbers from "
            "zero, or class names"
        )
    return tuple(str(number) for number in range(largest + 1))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal()


def _place(listing: Listing, label: str) -> str:
    return listing.places[listing.labels.index(label)]


def _labels(listing: Listing, names: Sequence[str], classes_of: str | None) -> tuple[int, ...]:
    """The index of each video's class; names and numbers from zero are understood, but not both in one list."""
    some = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    origin = "" if classes_of is None else f" of {classes_of}"
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    index_of[None] = NO_LABEL
    unknown = [label for label in dict.fromkeys(listing.labels) if label not in index_of and label is not None]
    numbers = [label for label in unknown if _is_number(label)]
    if numbers and not any(map(_is_number, names)):
        if any(label in index_of for label in listing.labels):
            raise InputError(
                f"{_place(listing, numbers[0])}: found the number {numbers[0][:20]}, where other lines have class names"
                ": give all labels as names or all as numbers"
            )
        if classes_of is not None:
            raise InputError(
                f"{_place(listing, numbers[0])}: found the number {numbers[0][:20]}, where the {len(names)} classes"
                f"{origin} have names ({some}): give names, or set data.class_names to a file with one class name on "
                "each line, whose first is number 0"
            )
        index_of |= {label: int(label) for label in numbers if len(label) < 10 and int(label) < len(names)}
    for label in unknown:
        if label not in index_of:
            hint = "count numbers from zero, " if label == str(len(names)) else ""
            raise InputError(
                f"{_place(listing, label)}: label {label[:100]!r} is none of the {len(names)} classes{origin} "
                f"({some}): {hint}correct it, or give the classes with `class_names`"
            )
    return tuple([index_of[label] for label in listing.labels])


def listed_paths(source: str | Path) -> list[tuple[str, str]]:
    """Where each video of a list lies, and how the list names it; labels are not looked at, nor whether files exist.

    Raises:
        InputError: the list cannot be read.
    """
    folders = Folders()
    listing, folder = _read_listing(source, folders)
    paths, _ = listing.locate(str(folder), folders)
    return list(zip(paths, listing.paths, strict=True))
