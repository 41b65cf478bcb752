"""Keeps the frames of small videos in memory, for ablation.py, which reads each of them many times."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from a2video.data.metadata import VideoRecord
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import ArrayReader


@cache
def decoded(path: str) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """Frames, their times and their rate, as PyAVReader has them."""
    with PyAVReader(path) as video:
        return video.get_frames(range(len(video))), video.times, video.fps


class MemoryReader(ArrayReader):
    """What PyAVReader reads, decoded once in each process."""

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        frames, self._times, fps = decoded(os.fspath(path))
        super().__init__(frames, fps)
        self.path = Path(path)

    @property
    def times(self) -> NDArray[np.float64]:
        """As the file has them."""
        return self._times
