"""What the scripts that make lists share: looking through a folder of videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from a2video.data.folders import VIDEO_SUFFIXES, Folders, join, suffix_of


def find_videos(root: str, folders: Folders) -> set[str]:
    """All videos in `root` and two folders deep, with a progress bar; `folders` then knows what lies there."""
    level, found = [root], set[str]()
    for _ in range(3):
        below = []
        for folder in tqdm(level, unit="folder", desc=f"looking through {root}", disable=len(level) < 2):
            names = folders.content(folder).files
            found.update(join(folder, name) for name in names if suffix_of(name) in VIDEO_SUFFIXES and name[0] != ".")
            below += [join(folder, name) for name in folders.visible_folders(folder)]
        level = below
    return found


def describe_others(root: Path, videos: Iterable[str], listed: Iterable[str]) -> str:
    """A sentence on the videos that no list names."""
    others = sorted(set(videos) - set(listed))
    example = f", such as {others[0]!r}" if others else ""
    return f"{len(others):,} videos in {root} are named by no list{example}"
