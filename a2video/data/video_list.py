"""Which videos there are and what they show: lists read from CSV files and folders of class folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from a2video.data.readers import IMAGE_SUFFIXES
from a2video.errors import InputError

VIDEO_SUFFIXES = set(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogg .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
NO_LABEL = -1


@dataclass(frozen=True)
class VideoList:
    """Videos with their labels.

    Attributes:
        source: the file or folder the list was read from.
        paths: one existing video file each.
        labels: index into class_names each, or NO_LABEL throughout for a list without labels.
        class_names: the classes in the order of the network's logits.
    """

    source: str
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _Entry:
    where: str  # for messages: "train.csv line 7" or a folder
    path: Path
    label: str | None


def read_video_list(
    source: str | Path, root: str | Path | None = None, class_names: Sequence[str] | None = None
) -> VideoList:
    """Reads a CSV file with the header `path,label`, or a folder with one folder of videos (or pictures) a class.

    Labels are class names, or whole numbers from zero. A CSV file without the column `label`, and a folder with
    videos right in it, give a list without labels.

    Args:
        source: the CSV file or the folder.
        root: the folder that relative paths in a CSV file start from; the CSV file's own folder when None.
        class_names: the classes, in order. When None they are the labels found, sorted; numbers count from zero.

    Raises:
        InputError: the list cannot be read, is empty, names a missing video, or has a label that is no class.
    """
    source = Path(source)
    if source.is_dir():
        entries, found_names = _entries_of_folder(source)
    elif source.is_file():
        entries = _entries_of_csv(source, source.parent if root is None else Path(root))
        found_names = None
    else:
        raise InputError(f"list {source} does not exist: give a CSV file or a folder with one folder for each class")
    if not entries:
        raise InputError(f"list {source} is empty: it must name at least one video")
    _refuse_missing(entries)
    _refuse_repeated(entries)
    labelled = [entry.label for entry in entries if entry.label is not None]
    names = tuple(class_names or found_names or _names_in(labelled))
    index_of = {name: index for index, name in enumerate(names)}
    labels = tuple(NO_LABEL if entry.label is None else _label_index(entry, index_of) for entry in entries)
    return VideoList(str(source), tuple(entry.path for entry in entries), labels, names)


def read_class_names(source: str | Path) -> tuple[str, ...]:
    """The classes of a list (see read_video_list), or of a text file (.txt) with one class name on each line.

    Videos need not exist.

    Raises:
        InputError: the file cannot be read, is empty, or names a class twice.
    """
    source = Path(source)
    if source.is_dir():
        names = _entries_of_folder(source)[1] or ()
    elif source.suffix == ".txt":
        names = tuple(line.strip() for line in _read_text(source).splitlines() if line.strip())
    else:
        entries = _entries_of_csv(source, source.parent)
        names = _names_in([entry.label for entry in entries if entry.label is not None])
    if not names:
        raise InputError(f"{source} names no class: expected labels, or one class name on each line of a .txt file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source} names the class {twice!r} twice")
    return names


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file: {error}") from error


def _entries_of_csv(path: Path, root: Path) -> list[_Entry]:
    rows = csv.reader(_read_text(path).splitlines())
    header = [name.strip() for name in next(rows, [])]
    if header not in (["path", "label"], ["path"]):
        raise InputError(
            f"{path} line 1: expected the header 'path,label' (or 'path' for videos without labels), "
            f"found {','.join(header)!r}"
        )
    entries = []
    try:
        for row in rows:
            if not any(row):
                continue  # a blank line
            where = f"{path} line {rows.line_num}"
            values = [value.strip() for value in row]
            if len(values) != len(header) or not all(values):
                raise InputError(f"{where}: expected {','.join(header)}, found {','.join(row)!r}")
            entries.append(_Entry(where, root / values[0], values[1] if len(values) > 1 else None))
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num}: {error}") from error
    return entries


def _entries_of_folder(folder: Path) -> tuple[list[_Entry], tuple[str, ...] | None]:
    """The videos in the class folders, and the classes; without class folders, the videos in `folder` itself."""
    class_folders = sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")
    loose = _videos_in(folder)
    if not class_folders:
        return [_Entry(str(folder), video, None) for video in loose], None
    if loose:
        raise InputError(f"{loose[0]} lies beside class folders: move it into one of them")
    entries = []
    for class_folder in class_folders:
        deeper = next((child for child in class_folder.iterdir() if child.is_dir() and child.name[0] != "."), None)
        if deeper is not None:
            raise InputError(f"{deeper} is a folder inside a class folder, where only videos are read: move its videos")
        videos = _videos_in(class_folder)
        if not videos:
            raise InputError(f"class folder {class_folder} has no video and no picture: add some or remove the folder")
        entries += [_Entry(str(class_folder), video, class_folder.name) for video in videos]
    return entries, tuple(class_folder.name for class_folder in class_folders)


def _videos_in(folder: Path) -> list[Path]:
    """The videos of a folder; its pictures where it has no video."""
    files = sorted(file for file in folder.iterdir() if file.name[0] != ".")
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    return videos or [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]


def _refuse_missing(entries: Sequence[_Entry]) -> None:
    missing = [entry for entry in entries if not entry.path.is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more of {len(entries)} are missing)" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0].where}: video {missing[0].path} does not exist{others}: correct the list, or set `root` to "
            "the folder that its paths start from"
        )


def _refuse_repeated(entries: Sequence[_Entry]) -> None:
    first: dict[Path, _Entry] = {}
    for entry in entries:
        if first.setdefault(entry.path, entry) is not entry:
            raise InputError(f"{entry.where}: {entry.path} was listed before ({first[entry.path].where}): remove one")


def _names_in(labels: Sequence[str]) -> tuple[str, ...]:
    if labels and all(label.isdecimal() for label in labels):
        largest = max(map(int, labels))
        if largest > 1000 + 10 * len(labels):
            raise InputError(f"label {largest} would make {largest + 1} classes: expected class numbers from zero")
        return tuple(str(number) for number in range(largest + 1))
    return tuple(sorted(set(labels)))


def _label_index(entry: _Entry, index_of: dict[str, int]) -> int:
    assert entry.label is not None
    if entry.label in index_of:
        return index_of[entry.label]
    are_words = not any(name.isdecimal() for name in index_of)
    if are_words and entry.label.isdecimal() and int(entry.label) < len(index_of):
        return int(entry.label)
    raise InputError(
        f"{entry.where}: label {entry.label!r} is none of the {len(index_of)} classes "
        f"({', '.join(list(index_of)[:5])}{', ...' if len(index_of) > 5 else ''}): correct it, or give the classes "
        "with `class_names`"
    )
