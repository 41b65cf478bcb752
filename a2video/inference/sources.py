"""From what a user names to videos: files, folders, patterns, lists; and which of them are this process's share."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from a2video.data.folders import Folders, join
from a2video.data.video_list import listed_paths
from a2video.errors import InputError

LIST_SUFFIXES = (".txt", ".csv")


class Source(NamedTuple):
    """A video to classify.

    Attributes:
        path: as it is opened and reported.
        name: within the folder, pattern or list that it was found by; the same wherever that lies.
    """

    path: str
    name: str


def find_videos(arguments: Sequence[str], shard: tuple[int, int] = (1, 1)) -> list[Source]:
    """The videos that `arguments` name, each once, in order.

    Args:
        arguments: video files; folders, searched with all their visible folders, each for its videos, or its pictures
            where it has no video; patterns with *, ? or [ (** for any folders); lists, .txt or .csv (see
            read_video_list). What is nothing of the sort counts as a file, for its reader to complain of.
        shard: (k, n): only part k of n. A video's part follows from its name alone, so that parts stay what they
            are when videos are added.

    Raises:
        InputError: a folder or pattern has no videos, or a list cannot be read.
    """
    number, num_shards = shard
    found: dict[str, Source] = {}
    for argument in arguments:
        sources = list(_find(argument))
        if not sources:
            raise InputError(f"{argument}: no video and no picture found: give files, folders, patterns or lists")
        for source in sources:
            if _hash(source.name) % num_shards == number - 1:
                found.setdefault(os.path.abspath(source.path), source)  # noqa: PTH100 (a Path takes long to make)
    return list(found.values())


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _find(argument: str) -> Iterator[Source]:
    if os.path.isdir(argument):  # noqa: PTH112 (Path.is_dir raises for names that nothing can have)
        folders = Folders()
        for folder in _folders_below(argument, folders):
            for video in folders.videos(folder):
                path = join(folder, video)
                yield Source(path, os.path.relpath(path, argument))
    elif os.path.isfile(argument):  # noqa: PTH113
        if argument.lower().endswith(LIST_SUFFIXES):
            yield from (Source(path, name) for path, name in listed_paths(argument))
        else:
            yield Source(argument, os.path.basename(argument))  # noqa: PTH119
    elif glob.has_magic(argument):
        start = argument[: next(i for i, character in enumerate(argument) if character in "*?[")]
        fixed = os.path.dirname(start)  # noqa: PTH120
        for path in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if os.path.isfile(path):  # noqa: PTH113
                yield Source(path, os.path.relpath(path, fixed or "."))
    else:
        yield Source(argument, os.path.basename(argument))  # noqa: PTH119


def _folders_below(folder: str, folders: Folders) -> Iterator[str]:
    """The folder and all visible ones below it, sorted; links to folders are not followed, for they may lead back."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder} may not be read: give the folders that may, or let it be read")
    yield folder
    for name in folders.visible_folders(folder):
        below = join(folder, name)
        if not os.path.islink(below):  # noqa: PTH114
            yield from _folders_below(below, folders)
