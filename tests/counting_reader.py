"""A reader that leaves a trace of each video it opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from a2video.data.pyav_reader import PyAVReader


class CountingReader(PyAVReader):
    """Adds the path of each video to opened.txt in the current folder."""

    def __init__(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        with Path("opened.txt").open("a", encoding="utf-8") as file:
            file.write(f"{path}\n")
        super().__init__(path, *args, **kwargs)
