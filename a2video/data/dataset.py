"""The map-style data set: one item is one video with all its views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from a2video.data.readers import VideoError, VideoReader, open_video
from a2video.data.samplers import ClipSampler
from a2video.data.transforms import Transform
from a2video.data.video_list import VideoList
from a2video.data.views import Centre, View, load_views
from a2video.errors import InputError

MAX_REPLACEMENTS = 30  # videos tried in place of a bad one; as many in a row are no accident


class Item(TypedDict):
    """One video. `clips` is uint8 (num_views, 3, T, H, W), or None where the video could not be read; see Batch."""

    video_index: int
    label: int
    clips: Tensor | None
    views: list[View]
    errors: list[tuple[int, str]]  # (video_index, message) of this video, or of those that it replaces


class Batch(TypedDict):
    """The readable videos of a batch, and what was wrong with others.

    `clips` is uint8 (B, V, 3, T, H, W); `labels` and `video_indices` are int64 (B,). After
    augmentation `clips` may be float32 in [0, 255], and `labels` float32 (B, num_classes), the share of each class.

    `views` is B lists of V: what clips[b, v] is. In testing the views are in the order clip * num_crops + crop. Where
    `Protocol.has_extra_centre`, the one centre view follows as the last of the V, with clip EXTRA_CLIP and crop 0: it
    is scored, but counts neither for the protocol's video level nor among its views. V is the same for all videos,
    but for protocols whose `num_views` is None: there it depends on the video, and a batch holds one video.
    """

    clips: Tensor
    labels: Tensor
    video_indices: Tensor
    views: list[list[View]]
    errors: list[tuple[int, str]]  # (video_index, message)


class VideoDataset(Dataset[Item]):
    """Videos of a list, cut into clips.

    Index `epoch * len(dataset) + i` is video i as epoch `epoch` sees it: all randomness comes from (seed, epoch, i),
    so results depend neither on the number of workers nor on the order of loading.

    A video that cannot be read gives an item with its error and without clips. In training another video takes its
    place, with its own label, drawn from (seed, epoch, i, attempt): which one depends on no more than that and on
    which videos are bad.

    Args:
        videos: the list.
        sampler: chooses the frames.
        transform: resizes and crops them.
        seed: of all randomness.
        replace_bad: give another video where one cannot be read; for training.
        open_it: opens a video; open_video with a reader or a metadata cache of choice, for instance.
        centre: see load_views.
        timed: likewise.

    Attributes:
        known_bad: why a video must not be opened again, by its index in the list; it counts as one that cannot be read.
        on_read: called with the index of each video before it is read, and with None afterwards.
    """

    def __init__(
        self,
        videos: VideoList,
        sampler: ClipSampler,
        transform: Transform,
        seed: int = 0,
        replace_bad: bool = False,
        open_it: Callable[[str | Path], VideoReader] = open_video,
        centre: Centre | None = None,
        timed: bool = False,
    ) -> None:
        self.videos = videos
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.replace_bad = replace_bad
        self.open_it = open_it
        self.centre = centre
        self.timed = timed
        self.known_bad: dict[int, str] = {}
        self.on_read: Callable[[int | None], None] = _ignore

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Item:
        """Decodes one video.

        Raises:
            InputError: with `replace_bad`, neither it nor any of its replacements can be read.
        """
        epoch, wanted = divmod(index, len(self))
        errors: list[tuple[int, str]] = []
        for video_index, rng in self._candidates(epoch, wanted):
            try:
                clips, views = self._read(video_index, rng)
            except VideoError as error:
                errors.append((video_index, str(error)))
            else:
                label = self.videos.labels[video_index]
                return Item(video_index=video_index, label=label, clips=clips, views=views, errors=errors)
        if self.replace_bad:
            raise InputError(
                f"{len(errors)} videos of {self.videos.source} drawn one after the other cannot be read: is their disk "
                f"still there? The last one is {errors[-1][1]}"
            )
        return Item(video_index=wanted, label=self.videos.labels[wanted], clips=None, views=[], errors=errors)

    def _candidates(self, epoch: int, wanted: int) -> Iterator[tuple[int, np.random.Generator]]:
        """The video that is wanted, then those to take instead, none twice, each with the rng of its clip."""
        yield wanted, np.random.default_rng([self.seed, epoch, wanted])
        tried = [wanted]
        for attempt in range(1, min(MAX_REPLACEMENTS + 1, len(self)) if self.replace_bad else 1):
            rng = np.random.default_rng([self.seed, epoch, wanted, attempt])
            other = int(rng.integers(len(self) - len(tried)))  # counted without those tried
            for earlier in sorted(tried):
                other += other >= earlier
            tried.append(other)
            yield other, rng

    def _read(self, video_index: int, rng: np.random.Generator) -> tuple[Tensor, list[View]]:
        path = self.videos.paths[video_index]
        if video_index in self.known_bad:
            raise VideoError(f"{path}: {self.known_bad[video_index]}")
        self.on_read(video_index)
        try:
            return load_views(path, self.sampler, self.transform, rng, self.open_it, self.centre, self.timed)
        finally:
            self.on_read(None)


def _ignore(video_index: int | None) -> None:
    """Where nobody asks what is being read."""


def collate(items: Sequence[Item]) -> Batch:
    """Stacks the readable videos and lists the errors of the others; `clips` is empty (0,) if none is readable."""
    good = [item for item in items if item["clips"] is not None]
    clips = [item["clips"] for item in good if item["clips"] is not None]
    return Batch(
        clips=torch.stack(clips) if clips else torch.empty(0, dtype=torch.uint8),
        labels=torch.tensor([item["label"] for item in good], dtype=torch.int64),
        video_indices=torch.tensor([item["video_index"] for item in good], dtype=torch.int64),
        views=[item["views"] for item in good],
        errors=[error for item in items for error in item["errors"]],
    )


class EpochSampler(Sampler[int]):
    """Indices for VideoDataset, `epoch * num_videos + i`, each rank its own part.

    In training every rank gets the same number of videos (a remainder waits for another epoch's order), so that no
    rank waits for another. Otherwise every video is given to exactly one rank, none twice.

    Args:
        num_videos: videos in the list.
        shuffle: a new order in each epoch; the list's own if not.
        seed: of the orders.
        drop_remainder: as in training; `shuffle` when None.
        left_out: videos that are not given to anyone.
    """

    def __init__(
        self,
        num_videos: int,
        shuffle: bool,
        seed: int = 0,
        drop_remainder: bool | None = None,
        left_out: Collection[int] = (),
    ) -> None:
        self.videos = np.array([video for video in range(num_videos) if video not in left_out], np.int64)
        self.num_videos = num_videos
        self.shuffle = shuffle
        self.seed = seed
        self.drop_remainder = shuffle if drop_remainder is None else drop_remainder
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rank, world = _rank_and_world()
        order = self.videos
        if self.shuffle:
            order = self.epoch * self.num_videos + np.random.default_rng([self.seed, self.epoch]).permutation(order)
        return iter(order[rank::world][: len(self)].tolist())

    def __len__(self) -> int:
        rank, world = _rank_and_world()
        num_videos = len(self.videos)
        return num_videos // world if self.drop_remainder else len(range(rank, num_videos, world))


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
