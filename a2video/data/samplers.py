"""Which frames make a clip, as pure index arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
Times: TypeAlias = NDArray[np.float64]
Short: TypeAlias = Literal["loop", "repeat_last", "error"]

TIME_TOLERANCE = 1.01e-3  # seconds: Matroska and FLV round times to milliseconds, the first frame's too

MAX_TICKS = 1 << 24  # of a video seen at another rate: 6 days at 30 in a second; damaged time stamps claim more


def span(num_frames: int, frame_stride: int) -> int:
    """Source frames from a clip's first frame to its last, both counted: span(8, 8) = 57."""
    return (num_frames - 1) * frame_stride + 1


def frames_at_rate(times: Times, target_fps: float) -> IntArray:
    """Source frames (num_ticks,) shown at the times 0, 1 / target_fps, 2 / target_fps, ... while the video lasts.

    The last frame is shown for one average frame period; of a single frame that is not known, and it makes one tick.
    Frames at 0, 0.04, 0.08, 0.12 and 0.16 seconds (25 fps), seen at 30: [0, 0, 1, 2, 3, 4].

    Args:
        times: seconds (num_available,) from the video's first frame, rising.
        target_fps: ticks in a second.
    """
    if len(times) == 1:
        return np.zeros(1, dtype=np.int64)
    period = float(times[-1]) / (len(times) - 1)
    tolerance = min(TIME_TOLERANCE, period / 4)
    num_ticks = max(1, int(np.ceil((times[-1] + period - tolerance) * target_fps)))
    if num_ticks > MAX_TICKS:
        raise ValueError(f"lasts {times[-1]:.0f} seconds by its time stamps, too long to be seen at {target_fps:g} fps")
    ticks = np.arange(num_ticks) / target_fps
    return np.maximum(np.searchsorted(times, ticks + tolerance, side="right") - 1, 0)


class ClipSampler(ABC):
    """Chooses the frames of a video's clips.

    Args:
        num_frames: frames in a clip (T), at least 1.
        num_clips: clips of each video, at least 1; None where their number depends on the video.
        target_fps: sees every video as if it had this many frames in a second, whatever it was filmed with; frames
            are counted as they are when None.
        short: what a clip takes beyond the end of a video shorter than its span. For 4 frames at stride 2 of a video
            of 5, "loop" goes on from the beginning, [0, 2, 4, 1]; "repeat_last" gives [0, 2, 4, 4]; "error" refuses
            the video.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, num_frames: int, num_clips: int | None, target_fps: float | None, short: Short) -> None:
        if num_frames < 1 or (num_clips is not None and num_clips < 1):
            raise ValueError(f"expected num_frames >= 1 and num_clips >= 1, got {num_frames} and {num_clips}")
        if target_fps is not None and not 0 < target_fps < np.inf:
            raise ValueError(f"expected target_fps > 0, got {target_fps}")
        self.num_frames = num_frames
        self.num_clips = num_clips
        self.target_fps = target_fps
        self.short = short

    def __call__(self, num_available: int, rng: np.random.Generator, times: Times | None = None) -> IntArray:
        """Frame indices (num_clips, num_frames), each in [0, num_available).

        Args:
            num_available: frames in the video, at least 1.
            rng: the only source of randomness.
            times: seconds (num_available,) at which they are shown, rising from 0; needed for target_fps.

        Raises:
            ValueError: the video is too short and `short` is "error", or `times` is missing.
        """
        if self.target_fps is None:
            return self._within(self._clips(num_available, rng), num_available)
        if times is None or len(times) != num_available:
            found = "none" if times is None else len(times)
            raise ValueError(f"target_fps needs the times of all {num_available} frames, got {found}")
        sources = frames_at_rate(times, self.target_fps)
        return sources[self._within(self._clips(len(sources), rng), len(sources))]

    def _within(self, indices: IntArray, num_available: int) -> IntArray:
        """The same, with indices beyond the end of the video replaced as `short` says."""
        if self.short == "loop":
            return indices % num_available
        if self.short == "error" and indices.max() >= num_available:
            at_rate = "" if self.target_fps is None else f" at {self.target_fps:g} frames a second"
            raise ValueError(
                f"has {num_available} frames{at_rate}, but a clip of {self.num_frames} needs {indices.max() + 1}: take "
                "shorter clips, set `short` to loop or repeat_last, or leave the video out of the list"
            )
        return np.minimum(indices, num_available - 1)

    @abstractmethod
    def _clips(self, num_available: int, rng: np.random.Generator) -> IntArray:
        """Indices (num_clips, num_frames) from 0 up; beyond the end only where the video is too short for a clip."""


class RandomClips(ClipSampler):
    """Clips that start anywhere they fit, each start equally likely; for training.

    Args:
        num_frames: frames in a clip (T), at least 1.
        frame_stride: source frames from one clip frame to the next, at least 0. With 0 a clip repeats one frame: a
            control for how much can be told without motion. Of several, each clip draws one, each equally likely.
        num_clips: clips of each video.
        target_fps: see ClipSampler.
        short: see ClipSampler.
    """

    num_clips: int

    def __init__(
        self,
        num_frames: int,
        frame_stride: int | Sequence[int],
        num_clips: int = 1,
        target_fps: float | None = None,
        short: Short = "loop",
    ) -> None:
        super().__init__(num_frames, num_clips, target_fps, short)
        strides = tuple(frame_stride) if isinstance(frame_stride, Sequence) else (frame_stride,)
        self.frame_strides = tuple(_check_stride(stride) for stride in strides)
        if not strides:
            raise ValueError("frame_stride is empty: give one stride, or several to draw from")

    def _clips(self, num_available: int, rng: np.random.Generator) -> IntArray:
        drawn = rng.integers(len(self.frame_strides), size=self.num_clips)  # of one takes nothing from the generator
        strides = np.array(self.frame_strides, dtype=np.int64)[drawn]
        last_starts = [max(num_available - span(self.num_frames, int(stride)), 0) for stride in strides]
        starts = rng.integers(0, last_starts, endpoint=True)
        return starts[:, None] + strides[:, None] * np.arange(self.num_frames)


class UniformClips(ClipSampler):
    """Clips with equal gaps from the first frame of the video to its last; the centre clip when there is one.

    With 100 frames and clips of span 57: num_clips 1 starts at [21], 3 at [0, 21, 43], 2 at [0, 43].

    Args:
        num_frames: frames in a clip (T), at least 1.
        frame_stride: source frames from one clip frame to the next, at least 0; 0 repeats one frame.
        num_clips: clips of each video.
        target_fps: see ClipSampler.
        short: see ClipSampler.
    """

    num_clips: int

    def __init__(
        self,
        num_frames: int,
        frame_stride: int,
        num_clips: int = 1,
        target_fps: float | None = None,
        short: Short = "loop",
    ) -> None:
        super().__init__(num_frames, num_clips, target_fps, short)
        self.frame_stride = _check_stride(frame_stride)

    def _clips(self, num_available: int, rng: np.random.Generator) -> IntArray:
        starts = self._starts(num_available, span(self.num_frames, self.frame_stride))
        return starts[:, None] + self.frame_stride * np.arange(self.num_frames)

    def _starts(self, num_available: int, span: int) -> IntArray:
        """First frames (num_clips,) of clips that cover `span` frames."""
        last_start = max(num_available - span, 0)
        if self.num_clips == 1:
            return np.array([last_start // 2], dtype=np.int64)
        return np.arange(self.num_clips, dtype=np.int64) * last_start // (self.num_clips - 1)


class EvenGaps(UniformClips):
    """Clips with equal gaps between them, before the first and after the last; like UniformClips where they overlap.

    With 300 frames and clips of span 57: num_clips 2 starts at [62, 181], 1 at [122], 10 at [0, 27, ..., 243].
    """

    def _starts(self, num_available: int, span: int) -> IntArray:
        free = num_available - self.num_clips * span
        if free < 0:
            return super()._starts(num_available, span)
        numbers = np.arange(self.num_clips, dtype=np.int64)
        return numbers * span - (numbers + 1) * -free // (self.num_clips + 1)  # gaps rounded up


class ConsecutiveClips(ClipSampler):
    """Windows one after another over the whole video, the last one moved back so that it ends with the video.

    With 20 frames and clips of span 7: starts [0, 7, 13]; with step 4: [0, 4, 8, 12, 13]. How many there are depends
    on the video.

    Args:
        num_frames: frames in a clip (T), at least 1.
        frame_stride: source frames from one clip frame to the next, at least 0.
        step: source frames from one clip's start to the next one's; the span when None, so that none overlap.
        target_fps: see ClipSampler.
        short: see ClipSampler.
    """

    def __init__(
        self,
        num_frames: int,
        frame_stride: int,
        step: int | None = None,
        target_fps: float | None = None,
        short: Short = "loop",
    ) -> None:
        super().__init__(num_frames, None, target_fps, short)
        self.frame_stride = _check_stride(frame_stride)
        self.step = span(num_frames, frame_stride) if step is None else step
        if self.step < 1:
            raise ValueError(f"expected step >= 1, got {step}")

    def _clips(self, num_available: int, rng: np.random.Generator) -> IntArray:
        last_start = max(num_available - span(self.num_frames, self.frame_stride), 0)
        starts = np.append(np.arange(0, last_start, self.step, dtype=np.int64), last_start)
        return starts[:, None] + self.frame_stride * np.arange(self.num_frames)


class SegmentFrames(ClipSampler):
    """One frame from each of T equal parts of the video (Wang et al., Temporal Segment Networks, ECCV 2016).

    With 10 frames and T = 4 the parts are [0, 1], [2, 3, 4], [5, 6] and [7, 8, 9], their middles [1, 3, 6, 8].

    Args:
        num_frames: parts, and frames in the clip (T), at least 1.
        random: any frame of each part, equally likely, for training; the middle one when False.
        target_fps: see ClipSampler.
        short: see ClipSampler, for a video of fewer than T frames.
    """

    num_clips: int

    def __init__(self, num_frames: int, random: bool, target_fps: float | None = None, short: Short = "loop") -> None:
        super().__init__(num_frames, 1, target_fps, short)
        self.random = random

    def _clips(self, num_available: int, rng: np.random.Generator) -> IntArray:
        num_available = max(num_available, self.num_frames)
        edges = np.arange(self.num_frames + 1, dtype=np.int64) * num_available // self.num_frames
        if self.random:
            return rng.integers(edges[:-1], edges[1:])[None]
        parts = np.arange(self.num_frames, dtype=np.int64)
        return (2 * parts[None] + 1) * num_available // (2 * self.num_frames)


def _check_stride(frame_stride: int) -> int:
    """The value itself, if it is a whole number in range."""
    if not isinstance(frame_stride, Integral) or frame_stride < 0:
        raise ValueError(f"expected frame_stride >= 0, got {frame_stride}")
    return int(frame_stride)
