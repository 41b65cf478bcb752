"""What lies in folders: each folder is listed once, however many lines of a list ask about its videos.

Paths are plain strings here, for a Path takes longer to make than all else there is to do for a line of a list.
"""

# ruff: noqa: PTH110, PTH113, PTH118, PTH119

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from a2video.data.readers import IMAGE_SUFFIXES

VIDEO_SUFFIXES = set(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogg .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)


class Content(NamedTuple):
    """The names in a folder; `others` are broken links and what else is neither file nor folder."""

    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


class Folders:
    """Remembers the content of every folder it was asked about."""

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}
        self._stems: dict[str, dict[str, tuple[str, ...]]] = {}

    def content(self, folder: str) -> Content:
        """The names in `folder`; none where it does not exist or may not be listed."""
        content = self._contents.get(folder)
        if content is None:
            content = self._contents[folder] = _list_folder(folder)
        return content

    def has_file(self, path: str) -> bool:
        """Whether `path` is an existing file.

        The file system has the last word on a name that is not listed: the folder may not be readable, or the system
        may not tell upper from lower case.
        """
        folder, slash, name = path.rpartition(os.sep)
        return name in self.content(folder or slash).files or os.path.isfile(path)

    def videos_by_stem(self, folder: str) -> dict[str, tuple[str, ...]]:
        """The paths of the videos in `folder` by their name without suffix."""
        stems = self._stems.get(folder)
        if stems is None:
            stems, start = self._stems.setdefault(folder, {}), os.path.join(folder, "")
            for name in self.content(folder).files:
                stem, _, suffix = name.rpartition(".")
                if f".{suffix.lower()}" in VIDEO_SUFFIXES:
                    stems[stem] = (*stems.get(stem, ()), start + name)
        return stems

    def visible_folders(self, folder: str) -> list[str]:
        """The folders in `folder`, sorted, without hidden ones."""
        return sorted(name for name in self.content(folder).folders if name[0] != ".")

    def videos(self, folder: str) -> list[str]:
        """The videos in `folder`, sorted, without hidden ones; its pictures where it has no video."""
        content = self.content(folder)
        names = [(name, suffix_of(name)) for name in sorted(content.files | content.others) if name[0] != "."]
        videos = [name for name, suffix in names if suffix in VIDEO_SUFFIXES]
        return videos or [name for name, suffix in names if suffix in IMAGE_SUFFIXES]


def join(root: str, path: str) -> str:
    """`path` below `root`, or as it is when absolute."""
    return join_all(root, [path])[0]


def join_all(root: str, paths: Sequence[str]) -> list[str]:
    """`paths` below `root`, absolute ones as they are; without empty and "." steps, so that equals look equal."""
    start = "" if root == "." else os.path.join(root, "")
    joined = [
        os.path.join(start, path) if path[:1] == "/" or ":" in path else start + path  # C:/ is absolute on Windows
        for path in paths
    ]
    return [str(Path(path)) if "//" in path or "/." in path or path[:2] == "./" else path for path in joined]


def name_of(path: str) -> str:
    """The last step of a path."""
    return os.path.basename(path)


def exists(path: str) -> bool:
    """Whether there is such a file or folder; False also for what cannot be a path."""
    return os.path.exists(path)


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot."""
    _, dot, suffix = name.rpartition(".")
    return dot + suffix.lower()


def _list_folder(folder: str) -> Content:
    files: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                (files if _is_file(entry) else folders if _is_folder(entry) else others).append(entry.name)
    except (OSError, ValueError):  # ValueError: a NUL byte
        return Content()
    return Content(frozenset(files), frozenset(folders), frozenset(others))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a circle of links
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
