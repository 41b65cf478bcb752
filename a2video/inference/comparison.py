"""Whether an exported network gives what torch gives, on real videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from a2video.data.folders import VIDEO_SUFFIXES
from a2video.data.readers import IMAGE_SUFFIXES
from a2video.data.transforms import Preprocessing
from a2video.data.video_list import NO_LABEL, read_video_list
from a2video.data.views import load_test_views
from a2video.inference.scoring import average_views

NUM_RANDOM = 8
TIE = 1e-6  # classes whose probabilities are that near to each other are both top-1

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Videos:
    """What networks are compared on.

    Attributes:
        source: where they come from, in words; None for random clips.
        paths: none for random clips.
        labels: index of each one's class, or NO_LABEL.
    """

    source: str | None
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def clips(self, preprocessing: Preprocessing, doing: str) -> Iterator[tuple[Tensor, int]]:
        """The views of each video, uint8 (V, 3, T, H, W), as in testing, and its label; random ones one by one."""
        if self.source is None:
            shape = (1, 3, preprocessing.num_frames, preprocessing.crop_size, preprocessing.crop_size)
            generator = torch.Generator().manual_seed(0)
            for _ in range(NUM_RANDOM):
                yield torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), NO_LABEL
        both = zip(self.paths, self.labels, strict=True)
        for path, label in tqdm(both, doing, len(self.paths), leave=False, unit="video", disable=None):
            yield load_test_views(path, preprocessing), label


def videos_of(sources: Sequence[str | Path], class_names: Sequence[str]) -> Videos:
    """The videos of a list or folder (see read_video_list), or video files; random clips where there is no source.

    Raises:
        InputError: the list cannot be read, or has other classes.
    """
    paths = [str(source) for source in sources]
    if not paths:
        return Videos(None, (), ())
    if len(paths) == 1 and Path(paths[0]).suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        listed = read_video_list(paths[0], class_names=class_names)
        return Videos(paths[0], listed.paths, listed.labels)
    return Videos(", ".join(paths), tuple(paths), (NO_LABEL,) * len(paths))


@dataclass(frozen=True)
class Comparison:
    """How an exported network differs from torch.

    Attributes:
        source: the list of the videos; None for random clips.
        num_videos: compared; random clips count as one each.
        num_clips: likewise, with crops.
        largest_difference: of the probabilities of any class in any clip, in [0, 1].
        equal_top1: share of the videos whose most probable class is torch's, in [0, 1].
        torch_top1: share of the labelled videos that torch classifies correctly; None where none has a label.
        exported_top1: likewise for the exported network.
    """

    source: str | None
    num_videos: int
    num_clips: int
    largest_difference: float
    equal_top1: float
    torch_top1: float | None
    exported_top1: float | None

    def to_dict(self) -> dict[str, Any]:
        """For the description."""
        change = None
        if self.torch_top1 is not None and self.exported_top1 is not None:
            change = self.exported_top1 - self.torch_top1
        return asdict(self) | {"top1_change": change}

    def __str__(self) -> str:
        """In two lines."""
        on = f"{self.num_videos} random clips, no video was given"
        if self.source is not None:
            on = f"{self.num_videos} videos ({self.num_clips} clips) of {self.source}"
        text = (
            f"Checked on {on}: probabilities differ from torch's by at most {self.largest_difference:.1e}, "
            f"same top-1 for {self.equal_top1:.2%}"
        )
        if self.torch_top1 is None or self.exported_top1 is None:
            return f"{text}\nAccuracy was not measured: no list with labels was given (--check LIST)"
        change = 100 * (self.exported_top1 - self.torch_top1)
        return f"{text}\nTop-1 accuracy: torch {self.torch_top1:.2%}, exported {self.exported_top1:.2%} ({change:+.2f})"


def compare(reference: Logits, exported: Logits, videos: Videos, preprocessing: Preprocessing) -> Comparison:
    """Compares two networks clip by clip, and video by video under the preprocessing's views.

    Args:
        reference: uint8 clips (N, 3, T, H, W) -> logits (N, K), of torch.
        exported: likewise.
        videos: to compare them on, at least one.
        preprocessing: from videos to clips.

    Raises:
        VideoError: a video cannot be read.
    """
    num_clips, gap, equal, right = 0, torch.zeros(()), [], []
    for clips, label in videos.clips(preprocessing, "checking"):
        of_both = [network(clips) for network in (reference, exported)]
        probs, ours = (logits.float().softmax(-1) for logits in of_both)
        gap = torch.maximum(gap, (probs - ours).abs().max())  # keeps NaN, where max() of Python might not
        probs, ours = (average_views(logits, "probs") for logits in of_both)
        equal.append(bool(probs.max() - probs[ours.argmax()] <= TIE))
        if label != NO_LABEL:
            right.append((int(probs.argmax()) == label, int(ours.argmax()) == label))
        num_clips += len(clips)
    accuracies = [sum(column) / len(right) for column in zip(*right, strict=True)] if right else [None, None]
    return Comparison(videos.source, len(equal), num_clips, float(gap), sum(equal) / len(equal), *accuracies)
