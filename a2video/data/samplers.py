"""Which frames make a clip, as pure index arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]


def span(num_frames: int, frame_stride: int) -> int:
    """Source frames from a clip's first frame to its last, both counted: span(8, 8) = 57."""
    return (num_frames - 1) * frame_stride + 1


def clip_indices(starts: IntArray, num_frames: int, frame_stride: int, num_available: int) -> IntArray:
    """Frame indices (num_clips, num_frames) of the clips that begin at `starts`.

    A clip that runs past the end goes on from the video's beginning: with 5 frames, start 0, 4 frames at stride 2
    are [0, 2, 4, 1].
    """
    offsets = np.arange(num_frames, dtype=np.int64) * frame_stride
    return (starts[:, None] + offsets) % num_available


class ClipSampler(ABC):
    """Chooses the frames of `num_clips` clips of a video.

    Args:
        num_frames: frames in a clip (T), at least 1.
        frame_stride: source frames from one clip frame to the next, at least 0. With 0 a clip repeats one frame: a
            control for how much can be told without motion.
        num_clips: clips of each video, at least 1.

    Raises:
        ValueError: a number is too small.
    """

    def __init__(self, num_frames: int, frame_stride: int, num_clips: int = 1) -> None:
        if num_frames < 1 or frame_stride < 0 or num_clips < 1:
            raise ValueError(
                "expected num_frames >= 1, frame_stride >= 0 and num_clips >= 1, "
                f"got {num_frames}, {frame_stride} and {num_clips}"
            )
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.num_clips = num_clips

    def __call__(self, num_available: int, rng: np.random.Generator) -> IntArray:
        """Frame indices (num_clips, num_frames), each in [0, num_available).

        Args:
            num_available: frames in the video, at least 1.
            rng: the only source of randomness.
        """
        last_start = max(num_available - span(self.num_frames, self.frame_stride), 0)
        starts = self._starts(last_start, rng)
        return clip_indices(starts, self.num_frames, self.frame_stride, num_available)

    @abstractmethod
    def _starts(self, last_start: int, rng: np.random.Generator) -> IntArray:
        """First frames (num_clips,), each in [0, last_start]."""


class RandomClips(ClipSampler):
    """Clips that start anywhere they fit, each start equally likely; for training."""

    def _starts(self, last_start: int, rng: np.random.Generator) -> IntArray:
        return rng.integers(0, last_start, size=self.num_clips, endpoint=True)


class UniformClips(ClipSampler):
    """Clips with equal gaps from the first frame of the video to its last; the centre clip when there is one.

    With 100 frames and clips of span 57: num_clips 1 starts at [21], 3 at [0, 21, 43], 2 at [0, 43].
    """

    def _starts(self, last_start: int, rng: np.random.Generator) -> IntArray:
        if self.num_clips == 1:
            return np.array([last_start // 2], dtype=np.int64)
        return np.arange(self.num_clips, dtype=np.int64) * last_start // (self.num_clips - 1)
