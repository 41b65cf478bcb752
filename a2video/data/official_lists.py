"""The official lists of UCF-101 and HMDB-51, as they come."""

from __future__ import annotations

import re
from pathlib import Path

from a2video.data.folders import Folders, join, name_of
from a2video.data.list_formats import Listing, parse_lines, read_text
from a2video.errors import InputError

_SPLIT_FILE = re.compile(r"(.+)_test_split([0-9]{1,3})\.txt")
_SPLIT_NAME = re.compile(r"(train|test)([0-9]{1,3})")


class OfficialListing(Listing):
    """UCF-101 and HMDB-51: videos in class folders, or all in one folder."""

    remedy = (
        "set `root` to the folder that holds the videos or their class folders, or set allow_missing (for UCF-101 "
        "data_prep/ucf101.py lists what is missing)"
    )
    is_complete = True

    def locate(self, root: str, folders: Folders) -> tuple[list[str], list[int]]:
        """In its class folder; right in `root` where it is only there."""
        paths, absent = super().locate(root, folders)
        missing = []
        for index in absent:
            flat = join(root, name_of(paths[index]))
            if folders.has_file(flat):
                paths[index] = flat
            else:
                missing.append(index)
        return paths, missing


def read_class_index(path: Path) -> tuple[str, ...]:
    """The classes of UCF-101's classInd.txt, whose lines are `1 ApplyEyeMakeup` and so on from 1.

    Raises:
        InputError: a line does not carry the next number and a name.
    """
    names: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            index, _, name = line.strip().partition(" ")
            if index != str(len(names) + 1) or not name.strip():
                raise InputError(
                    f"{path} line {number}: expected '{len(names) + 1} NAME', found {line.strip()[:200]!r}"
                )
            names.append(name.strip())
    return tuple(names)


def parse_ucf101(path: Path, text: str) -> Listing:
    """UCF-101's trainlistNN.txt (`Class/v_x.avi 1`, numbers from 1) and testlistNN.txt (`Class/v_x.avi`).

    The class is the folder's name in both; classInd.txt beside the list gives all classes.
    """
    names = read_class_index(path.with_name("classInd.txt"))
    number_of = {name: str(number) for number, name in enumerate(names, 1)}
    listing = parse_lines(path, text)
    classes: list[str | None] = []
    for place, video, label in zip(listing.places, listing.paths, listing.labels, strict=True):
        folder = name_of(video[: -len(name_of(video)) - 1])
        if folder not in number_of:
            raise InputError(f"{place}: expected CLASS/VIDEO with a class of classInd.txt, found {video[:200]!r}")
        if label is not None and label != number_of[folder]:
            raise InputError(
                f"{place}: label {label[:99]} contradicts the folder {folder!r}, which is class {number_of[folder]} in "
                "classInd.txt: correct one of them"
            )
        classes.append(folder)
    return OfficialListing(listing.places, listing.paths, classes, names)


def parse_hmdb51(folder: Path, part: str, names: list[str]) -> Listing:
    """The videos of "train1", "test2", ... of a folder of HMDB-51's split files.

    Args:
        folder: holds files `CLASS_test_splitN.txt` with lines `video.avi 1` (0 unused, 1 training, 2 testing).
        part: train or test with the split's number.
        names: all split files in it.
    """
    splits = sorted({int(name[: -len(".txt")].rpartition("_test_split")[2]) for name in names})
    wanted = _SPLIT_NAME.fullmatch(part)
    if wanted is None or int(wanted[2]) not in splits:
        raise InputError(f"list {folder}#{part}: expected train or test and one of the splits {splits} after the #")
    listing, classes = OfficialListing(), []
    for name in sorted(names):
        match = _SPLIT_FILE.fullmatch(name)
        if match is None or int(match[2]) != int(wanted[2]):
            continue
        classes.append(match[1])
        lines = parse_lines(folder / name, read_text(folder / name))
        for place, video, use in zip(lines.places, lines.paths, lines.labels, strict=True):
            if use not in ("0", "1", "2"):
                raise InputError(f"{place}: expected 0, 1 or 2 after the video, found {str(use)[:200]!r}")
            if use == {"train": "1", "test": "2"}[wanted[1]]:
                listing.add(place, f"{match[1]}/{video}", match[1])
    listing.class_names = tuple(classes)
    return listing


def split_files(names: frozenset[str]) -> list[str]:
    """The names among `names` that HMDB-51's split files have."""
    return [name for name in names if _SPLIT_FILE.fullmatch(name)]
