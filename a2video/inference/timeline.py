"""What happens when in a long video: overlapping windows, smoothed and merged into segments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2video.data.readers import VideoReader, open_video
from a2video.data.samplers import ConsecutiveClips, span
from a2video.data.transforms import Preprocessing
from a2video.data.views import draw_clips, even_views, reading, seconds, stream_clips
from a2video.errors import InputError
from a2video.inference.classifier import VideoClassifier
from a2video.inference.scoring import MAX_CLIPS, average_views

OVERLAP = 2  # windows over every moment, where nothing else is asked for
SHORTEST = 1.5  # windows that a segment lasts at least
SMALLEST = 1e-6  # probability: one window that is certain of something else does not decide alone

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A part of a video that shows one class.

    Attributes:
        start_seconds: from the video's first frame.
        end_seconds: likewise; the next segment's start.
        label: the class.
        confidence: its mean probability in this part.
    """

    start_seconds: float
    end_seconds: float
    label: str
    confidence: float


@dataclass(frozen=True)
class Timeline:
    """The classes of a video along its time.

    The video is cut into slots of the windows' stride; a slot's probabilities are the mean over the windows that lie
    over its middle, which smooths them.

    Attributes:
        path: the video.
        class_names: in the order of the probabilities.
        windows: start and end in seconds of each window (N, 2).
        window_probs: of each window's classes (N, num_classes).
        edges: where slots begin and the last one ends, in seconds (M + 1,), from 0 to the end of the video.
    """

    path: str
    class_names: tuple[str, ...]
    windows: Array
    window_probs: Array
    edges: Array

    @cached_property
    def probs(self) -> Array:
        """The probabilities of each slot (M, num_classes)."""
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        first = np.searchsorted(self.windows[:, 1], middles, side="right")  # the first that ends after it
        last = np.searchsorted(self.windows[:, 0], middles, side="right")
        last = np.maximum(last, 1)
        first = np.minimum(first, last - 1)  # where frames are missing for long: the window before
        sums = np.concatenate([np.zeros((1, len(self.class_names))), np.cumsum(self.window_probs, 0)])
        return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The most probable way to cut the video into parts of one class that are longer than a window.

        What lasts no longer than a window could be no more than a cut between two scenes, which windows over it
        mistake for a class of its own. So a part has at least SHORTEST windows (or is the whole video), and among all
        such segmentations this has the largest sum of the slots' log-probabilities.
        """
        width = float(np.median(np.diff(self.windows, axis=1)))
        slot = float(self.edges[1] - self.edges[0])
        labels = segment_labels(self.probs, math.ceil(SHORTEST * width / slot - 1e-6) if slot else 1)
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        ends = np.append(starts[1:], len(labels))
        return tuple(
            Segment(
                float(self.edges[start]),
                float(self.edges[end]),
                self.class_names[labels[start]],
                float(self.probs[start:end, labels[start]].mean()),
            )
            for start, end in zip(starts, ends, strict=True)
        )

    def slot_at(self, moment: float) -> int:
        """The number of the slot at `moment`, in seconds; the first or the last one outside of the video."""
        return int(np.clip(np.searchsorted(self.edges, moment, side="right") - 1, 0, len(self.edges) - 2))


def segment_labels(probs: Array, shortest: int) -> NDArray[np.int64]:
    """The class (M,) of each slot, with none between changes shorter than `shortest` slots.

    Of all such it has the largest sum of log-probabilities; found by dynamic programming over where segments begin.

    Args:
        probs: of each slot's classes (M, num_classes).
        shortest: slots; a video that has fewer is one segment.
    """
    num_slots, num_classes = probs.shape
    shortest = min(shortest, num_slots)
    sums = np.concatenate([np.zeros((1, num_classes)), np.cumsum(np.log(np.maximum(probs, SMALLEST)), 0)])
    best = np.full(num_slots + 1, -np.inf)  # of the first t slots
    best[0] = 0
    before = np.full(num_classes, -np.inf)  # of what comes before a segment of each class that ends at t
    start = np.zeros(num_classes, np.int64)  # where that segment begins
    last = [(0, 0)] * (num_slots + 1)  # start and class of the segment that ends at t
    for end in range(shortest, num_slots + 1):
        begin = end - shortest
        value = best[begin] - sums[begin]
        start[value > before] = begin
        before = np.maximum(before, value)
        label = int((before + sums[end]).argmax())
        best[end], last[end] = before[label] + sums[end, label], (int(start[label]), label)
    labels = np.empty(num_slots, np.int64)
    end = num_slots
    while end:
        begin, label = last[end]
        labels[begin:end] = label
        end = begin
    return labels


def timeline(
    classifier: VideoClassifier,
    path: str | Path,
    stride_seconds: float | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Timeline:
    """Classifies every part of a video, however long: it is decoded once, and its clips are dropped when scored.

    The last window ends with the video; a video shorter than a window has one.

    Args:
        classifier: whose clips are the windows; all crops of each are averaged.
        path: the video.
        stride_seconds: from one window's start to the next one's; half a window when None.
        on_progress: called with the share of the video that is done, in [0, 1].

    Raises:
        VideoError: the video cannot be read.
        InputError: the stride is not positive, or leaves gaps between windows.
    """
    with reading(path), open_video(path) as video:
        step, slot_seconds = _stride(classifier.preprocessing, video, stride_seconds)
        p = classifier.preprocessing
        sampler = ConsecutiveClips(p.num_frames, p.frame_stride, step, p.target_fps, p.short)
        clips = draw_clips(video, sampler, np.random.default_rng(0))
        scores = _Scores(classifier, len(clips), on_progress)
        stream_clips(video, clips, even_views(p)[1], scores.take)
        windows = seconds(video, clips)
        end = float(seconds(video, np.array([[len(video) - 1]]))[0, 1])
        edges = np.append(np.arange(0, max(end - slot_seconds / 2, slot_seconds / 2), slot_seconds), end)
    return Timeline(str(path), classifier.class_names, windows, scores.finish(), edges)


class _Scores:
    """Scores clips a few together as they come."""

    def __init__(
        self, classifier: VideoClassifier, num_clips: int, on_progress: Callable[[float], None] | None
    ) -> None:
        self.classifier = classifier
        self.probs = np.zeros((num_clips, len(classifier.class_names)))
        self.on_progress = on_progress
        self.num_done = 0
        self.waiting: list[Tensor] = []

    def take(self, number: int, views: Tensor) -> None:
        """See stream_clips."""
        if number == 0:
            self.num_done = 0
            self.waiting.clear()
        self.waiting.append(views)
        if (len(self.waiting) + 1) * len(views) > MAX_CLIPS:
            self.flush()

    def flush(self) -> None:
        """Scores what waits."""
        if not self.waiting:
            return
        logits = self.classifier.score(torch.cat(self.waiting))
        for part in torch.split(logits, len(self.waiting[0])):
            self.probs[self.num_done] = average_views(part, "probs").numpy()
            self.num_done += 1
        self.waiting.clear()
        if self.on_progress is not None:
            self.on_progress(self.num_done / len(self.probs))

    def finish(self) -> Array:
        """All probabilities (num_clips, num_classes)."""
        self.flush()
        return self.probs


def _stride(p: Preprocessing, video: VideoReader, stride_seconds: float | None) -> tuple[int, float]:
    """From one window to the next, in frames at the rate at which the network sees them, and in seconds."""
    last = float(video.times[-1])
    fps = p.target_fps or ((len(video) - 1) / last if last > 0 else video.fps)  # as shown: a file may state anything
    if not fps:
        if stride_seconds is not None:
            raise InputError(f"{video.path} does not tell its frame rate: leave the stride to its default")
        fps = 1.0
    width = span(p.num_frames, p.frame_stride)
    if stride_seconds is None:
        step = max(1, width // OVERLAP)
        return step, step / fps
    step = max(1, round(stride_seconds * fps)) if stride_seconds > 0 else 0
    if not 1 <= step <= width:
        raise InputError(
            f"a stride of {stride_seconds:g} s does not suit the windows of {width / fps:.3g} s of {video.path}: give "
            "a positive one of at most that, or none"
        )
    return step, step / fps
