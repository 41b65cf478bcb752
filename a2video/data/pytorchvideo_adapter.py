"""Our samplers in pytorchvideo's data sets, which ask for one clip after another in seconds; needs no pytorchvideo."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch

from a2video.data.samplers import ClipSampler


class ClipInfo(NamedTuple):
    """One clip as pytorchvideo wants it: the frames shown in [clip_start_sec, clip_end_sec)."""

    clip_start_sec: Fraction
    clip_end_sec: Fraction
    clip_index: int
    aug_index: int
    is_last_clip: bool


class PytorchvideoSampler:
    """Usable wherever pytorchvideo takes a clip sampler, as in LabeledVideoDataset(paths, PytorchvideoSampler(...)).

    pytorchvideo cuts a clip out of the video with all its frames, from the first of the sampler's clip to the last.
    UniformTemporalSubsample(num_frames) then leaves those of a clip with a constant stride; of segments it takes frames
    evenly between the first and the last. Cuts lie half a frame before the frames' times, so that times rounded in
    the file change nothing. A video shorter than a clip comes with all its frames. pytorchvideo takes the longer of
    picture and sound for the duration (give it decode_audio=False), and the last frame's time where a file names none.

    Randomness comes from torch's global generator, which is seeded differently in each worker and each epoch.

    Args:
        sampler: chooses the frames.
        fps: frames in a second of every video, taken as constant; Fraction(30000, 1001) where it is no whole number.
    """

    def __init__(self, sampler: ClipSampler, fps: float | Fraction) -> None:
        if not fps > 0:
            raise ValueError(f"expected fps > 0, got {fps}")
        self.sampler = sampler
        self.fps = Fraction(fps)
        self._waiting: list[ClipInfo] = []

    def __call__(
        self, last_clip_end_time: float | Fraction | None, video_duration: float | Fraction, annotation: dict[str, Any]
    ) -> ClipInfo:
        """The video's next clip; of a new video the first, after reset() or after the last clip of another.

        A clip of the frames 121 to 177 at 30 fps lasts from 120.5 / 30 to 177.5 / 30 seconds.

        Args:
            last_clip_end_time: not used.
            video_duration: seconds, which tell the number of frames.
            annotation: not used.
        """
        if not self._waiting:
            self._waiting = self._clips(max(1, round(video_duration * self.fps)))
        return self._waiting.pop(0)

    def _clips(self, num_available: int) -> list[ClipInfo]:
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        indices = self.sampler(num_available, rng, np.arange(num_available) / float(self.fps))
        half = Fraction(1, 2)
        return [
            ClipInfo(
                max(Fraction(int(clip.min())) - half, Fraction(0)) / self.fps,
                (int(clip.max()) + half) / self.fps,
                number,
                0,
                number == len(indices) - 1,
            )
            for number, clip in enumerate(indices)
        ]

    def reset(self) -> None:
        """Forgets the clips of the current video."""
        self._waiting = []
