"""The map-style data set: one item is one video with all its views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from a2video.data.readers import Frames, VideoError, VideoReader, open_video
from a2video.data.samplers import ClipSampler, UniformClips
from a2video.data.transforms import Cut, EvenCrops, Preprocessing, Transform
from a2video.data.video_list import VideoList


class Item(TypedDict):
    """One video. `clips` is uint8 (num_views, 3, T, H, W), or None where the video could not be read."""

    video_index: int
    label: int
    clips: Tensor | None
    error: str | None


class Batch(TypedDict):
    """The readable videos of a batch, and what was wrong with the others.

    `clips` is uint8 (B, num_views, 3, T, H, W); `labels` and `video_indices` are int64 (B,).
    """

    clips: Tensor
    labels: Tensor
    video_indices: Tensor
    errors: list[tuple[int, str]]  # (video_index, message)


def load_views(
    path: str | Path,
    sampler: ClipSampler,
    transform: Transform,
    rng: np.random.Generator,
    reader: Callable[[str | Path], VideoReader] = open_video,
) -> Tensor:
    """The views of one video, uint8 (num_clips * num_crops, 3, T, H, W); view = clip * num_crops + crop.

    The video is decoded once, however many views share its frames, and resized as it is decoded.

    Raises:
        VideoError: the video cannot be read.
    """
    cut: Cut | None = None

    def take(frames: Frames) -> Tensor:
        nonlocal cut
        if cut is None:
            cut = transform.draw(frames.shape[1], frames.shape[2], rng)
        return cut(frames)

    with reader(path) as video:
        indices = sampler(len(video), rng)  # (num_clips, T)
        needed, where = np.unique(indices, return_inverse=True)
        crops = video.map_frames(needed, take)  # (N, num_crops, 3, h, w)
    clips = crops[torch.from_numpy(where.reshape(indices.shape))]  # (num_clips, T, num_crops, 3, h, w)
    return clips.permute(0, 2, 3, 1, 4, 5).flatten(0, 1).contiguous()


def load_test_views(path: str | Path, preprocessing: Preprocessing) -> Tensor:
    """The views that testing and inference score; see load_views."""
    return load_views(path, *even_views(preprocessing), np.random.default_rng(0))


def even_views(preprocessing: Preprocessing) -> tuple[ClipSampler, Transform]:
    """The sampler and the transform of testing and inference."""
    p = preprocessing
    return UniformClips(p.num_frames, p.frame_stride, p.num_clips), EvenCrops(p.short_side, p.crop_size, p.num_crops)


class VideoDataset(Dataset[Item]):
    """Videos of a list, cut into clips.

    Index `epoch * len(dataset) + i` is video i as epoch `epoch` sees it: all randomness comes from (seed, epoch, i),
    so results depend neither on the number of workers nor on the order of loading.

    Args:
        videos: the list.
        sampler: chooses the frames.
        transform: resizes and crops them.
        seed: of all randomness.
        report_errors: give an item with `error` for a video that cannot be read, instead of raising VideoError.
    """

    def __init__(
        self,
        videos: VideoList,
        sampler: ClipSampler,
        transform: Transform,
        seed: int = 0,
        report_errors: bool = False,
    ) -> None:
        self.videos = videos
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.report_errors = report_errors

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Item:
        """Decodes one video.

        Raises:
            VideoError: it cannot be read, and `report_errors` is off.
        """
        epoch, video_index = divmod(index, len(self))
        rng = np.random.default_rng([self.seed, epoch, video_index])
        item = Item(video_index=video_index, label=self.videos.labels[video_index], clips=None, error=None)
        try:
            item["clips"] = load_views(self.videos.paths[video_index], self.sampler, self.transform, rng)
        except VideoError as error:
            if not self.report_errors:
                raise
            item["error"] = str(error)
        return item


def collate(items: Sequence[Item]) -> Batch:
    """Stacks the readable videos and lists the errors of the others; `clips` is empty (0,) if none is readable."""
    good = [item for item in items if item["clips"] is not None]
    clips = [item["clips"] for item in good if item["clips"] is not None]
    return Batch(
        clips=torch.stack(clips) if clips else torch.empty(0, dtype=torch.uint8),
        labels=torch.tensor([item["label"] for item in good], dtype=torch.int64),
        video_indices=torch.tensor([item["video_index"] for item in good], dtype=torch.int64),
        errors=[(item["video_index"], item["error"]) for item in items if item["error"] is not None],
    )


class EpochSampler(Sampler[int]):
    """Indices for VideoDataset, `epoch * num_videos + i`, each rank its own part.

    Shuffled, every rank gets the same number of videos (a remainder waits for another epoch's order), so that no
    rank waits for another in training. In order, every video is given to exactly one rank, none twice.
    """

    def __init__(self, num_videos: int, shuffle: bool, seed: int = 0) -> None:
        self.num_videos = num_videos
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rank, world = _rank_and_world()
        if not self.shuffle:
            return iter(range(rank, self.num_videos, world))
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_videos)
        return iter((self.epoch * self.num_videos + order[rank::world][: len(self)]).tolist())

    def __len__(self) -> int:
        rank, world = _rank_and_world()
        return self.num_videos // world if self.shuffle else len(range(rank, self.num_videos, world))


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
