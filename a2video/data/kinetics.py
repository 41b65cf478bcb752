"""Kinetics-400/600/700 as the official CSV files name it, found under the names that downloaders give the clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from a2video.data.folders import Folders, join
from a2video.data.list_formats import Listing, header_of, rows_of
from a2video.errors import InputError

COLUMNS = ("youtube_id", "time_start", "time_end")  # and, not in all files: label, split
SPLIT_WORDS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


@dataclass
class KineticsListing(Listing):
    """Rows of an official CSV.

    Attributes:
        youtube_ids: one for each video.
        splits: "train", "val", "test", or "" where the file has no such column; one for each video.
    """

    youtube_ids: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    remedy: ClassVar[str] = (
        "set `root` to the folder that holds the videos, their class folders or train/, val/ and test/, make a list of "
        "those that are present with data_prep/kinetics.py, or set allow_missing"
    )

    def select(self, source: str, part: str | None) -> KineticsListing:
        """The rows of the split `part`; all when None, if they are of one split.

        Raises:
            InputError: there are no such rows, or several splits to choose from.
        """
        splits = sorted(set(self.splits))
        if part is None:
            if len(splits) > 1:
                choices = " or ".join(f"{source}#{split}" for split in splits)
                raise InputError(f"list {source} holds the splits {', '.join(splits)}: choose one with {choices}")
            return self
        wanted = SPLIT_WORDS.get(part)
        if wanted is None or wanted not in splits:
            found = ", ".join(filter(None, splits)) or "no split"
            raise InputError(f"list {source}#{part}: expected a split after the #, and {source} holds {found}")
        kept = [index for index, split in enumerate(self.splits) if split == wanted]
        return KineticsListing(
            places=[self.places[i] for i in kept],
            paths=[self.paths[i] for i in kept],
            labels=[self.labels[i] for i in kept],
            youtube_ids=[self.youtube_ids[i] for i in kept],
            splits=[self.splits[i] for i in kept],
        )

    def locate(self, root: str, folders: Folders) -> tuple[list[str], list[int]]:
        """The file of each clip: ID_000001_000011 or ID with any video suffix; and the indices of the missing ones.

        It may lie in `root` or in a folder named like the split, there or in a class folder, whose name may have "_"
        for a space. Of several files, the one with the times in the class folder is taken.

        Raises:
            InputError: several files fit a clip.
        """
        known: dict[tuple[str, str | None], _Places] = {}
        located, missing = [], []
        for index, key in enumerate(zip(self.splits, self.labels, strict=True)):
            places = known.get(key) or known.setdefault(key, _Places(root, folders, *key))
            found = places.find(self.paths[index], self.youtube_ids[index])
            if len(found) > 1:
                raise InputError(
                    f"{self.places[index]}: several files fit {self.paths[index]}: {' and '.join(sorted(found))}: keep "
                    "one of them"
                )
            if not found:
                missing.append(index)
            located.append(found[0] if found else join(places.folder, f"{self.paths[index]}.mp4"))
        return located, missing


class _Places:
    """Where the clips of a split and class may lie, of the folders that exist.

    Attributes:
        folder: where one would put a clip.
    """

    def __init__(self, root: str, folders: Folders, split: str, label: str | None) -> None:
        self.folder = root
        self._shared: list[dict[str, tuple[str, ...]]] = []
        self._of_class: list[dict[str, tuple[str, ...]]] = []
        names = [word for word, meaning in SPLIT_WORDS.items() if meaning == split]
        for base in [root, *(join(root, name) for name in names if name in folders.content(root).folders)]:
            self.folder = base
            self._shared.append(folders.videos_by_stem(base))
            for name in dict.fromkeys((label, label.replace(" ", "_"))) if label else ():
                if name in folders.content(base).folders:
                    self.folder = join(base, name)
                    self._of_class.append(folders.videos_by_stem(self.folder))
        self._all = [stems for stems in self._shared + self._of_class if stems]

    def find(self, with_times: str, youtube_id: str) -> list[str]:
        """The files that may be the clip; just one where the class folders hold one with the times."""
        found: list[str] = []
        for stems in self._all:
            found += stems.get(with_times, ())
            found += stems.get(youtube_id, ())
        if len(found) > 1:
            exact = [path for stems in self._of_class for path in stems.get(with_times, ())]
            return exact if len(exact) == 1 else found
        return found


def is_kinetics(text: str) -> bool:
    """Whether a list starts with a header like that of an official CSV."""
    return "youtube_id" in header_of(text)


def parse_kinetics(path: Path, text: str) -> KineticsListing:
    """All rows of an official CSV, columns in any order.

    Raises:
        InputError: a column is missing, or a row is wrong.
    """
    header = header_of(text)
    missing = [name for name in COLUMNS if name not in header]
    if missing or len(set(header)) < len(header):
        raise InputError(
            f"{path} line 1: expected {', '.join(COLUMNS)} (and label, split), found {','.join(header)[:200]!r}"
        )
    id_at, start_at, end_at = (header.index(name) for name in COLUMNS)
    label_at, split_at = (header.index(name) if name in header else None for name in ("label", "split"))
    listing = KineticsListing()
    for place, row in rows_of(path, text, len(header)):
        youtube_id, label = row[id_at], None if label_at is None else row[label_at]
        split = "" if split_at is None else SPLIT_WORDS.get(row[split_at], "")
        if not youtube_id or "/" in youtube_id or "\\" in youtube_id:
            raise InputError(f"{place}: expected a YouTube id, found {youtube_id[:200]!r}")
        if label == "":
            raise InputError(f"{place}: expected a label, found none")
        if split_at is not None and not split:
            raise InputError(f"{place}: expected the split {', '.join(SPLIT_WORDS)}, found {row[split_at][:200]!r}")
        start, end = row[start_at], row[end_at]
        if not (_is_whole(start) and _is_whole(end)):
            start, end = _whole_seconds(place, start), _whole_seconds(place, end)
        listing.add(place, f"{youtube_id}_{start.zfill(6)}_{end.zfill(6)}", label)
        listing.youtube_ids.append(youtube_id)
        listing.splits.append(split)
    return listing


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _whole_seconds(place: str, text: str) -> str:
    """Seconds such as "12.0" as "12"."""
    whole, _, rest = text.partition(".")
    if not _is_whole(whole) or rest.strip("0"):
        raise InputError(f"{place}: expected whole seconds in time_start and time_end, found {text[:200]!r}")
    return whole
