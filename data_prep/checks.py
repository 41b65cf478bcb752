"""Look at one video: really decode its first, middle and last frame, and note what a metadata cache keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from a2video.data.metadata import VideoRecord
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import open_video


@dataclass(frozen=True)
class Facts:
    """What the summary needs of one good video.

    Attributes:
        num_frames: at least 1.
        fps: frames per second; 0.0 if the file does not state it.
        size: (width, height) of the upright picture in pixels.
        duration_seconds: 0.0 for pictures.
        keyframe_distance: the largest number of frames from a keyframe to the next or to the end; None where frames
            must be counted from the beginning.
    """

    num_frames: int
    fps: float
    size: tuple[int, int]
    duration_seconds: float
    keyframe_distance: int | None

    @classmethod
    def of(cls, record: VideoRecord) -> Facts:
        """Of a video in the cache."""
        index = record.index
        gaps = np.diff(index.keyframes, append=index.num_frames)
        size = (record.width, record.height)
        return cls(index.num_frames, record.fps, size, record.duration_seconds, int(gaps.max()) if len(gaps) else None)


def check_video(path: Path) -> VideoRecord | Facts:
    """Decodes frames and gives the record of a video, or the facts of a picture, which caches do not keep.

    Raises:
        VideoError: it cannot be read.
    """
    with open_video(path) as video:
        middle, last = len(video) // 2, len(video) - 1
        for number in sorted({0, middle, last}):  # one by one: each may be large
            height, width = video.get_frames([number]).shape[1:3]
        if isinstance(video, PyAVReader):
            return video.record()
    return Facts(1, 0.0, (width, height), 0.0, 1)
