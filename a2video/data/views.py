"""One decoding pass over a video gives all its views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2video.data.readers import Frames, VideoError, VideoReader, open_video
from a2video.data.samplers import ClipSampler, IntArray, UniformClips
from a2video.data.transforms import Cut, EvenCrops, Preprocessing, Transform

EXTRA_CLIP = -1  # View.clip of the extra centre view

Centre: TypeAlias = tuple[ClipSampler, Transform]


class View(NamedTuple):
    """Where one view of a video comes from.

    Attributes:
        clip: its number, from 0; EXTRA_CLIP for the one centre view that is scored beside a protocol's own views.
        crop: its number in the clip, from 0.
        first_frame: source frame of the clip's first frame, from 0.
        last_frame: likewise of its last; before the first where a short video was looped.
        seconds: when the earliest of the clip's frames is shown, after the video's first one, and when the latest is
            no longer shown; None where that was not asked for, as some readers must decode the whole video for it.
    """

    clip: int
    crop: int
    first_frame: int
    last_frame: int
    seconds: tuple[float, float] | None = None


def load_views(
    path: str | Path,
    sampler: ClipSampler,
    transform: Transform,
    rng: np.random.Generator,
    open_it: Callable[[str | Path], VideoReader] = open_video,
    centre: Centre | None = None,
    timed: bool = False,
) -> tuple[Tensor, list[View]]:
    """The views of one video, uint8 (num_clips * num_crops, 3, T, H, W), and what they are.

    The video is decoded once, however many views share its frames; a frame is resized as it is decoded, once for all
    views that need it in that size.

    Args:
        path: the video.
        sampler: chooses the frames.
        transform: resizes and crops them.
        rng: the only source of randomness.
        open_it: opens the video.
        centre: what chooses and crops one more view of as many frames, which comes last.
        timed: give View.seconds.

    Raises:
        VideoError: the video cannot be read, or is too short for the sampler.
    """
    parts = [(sampler, transform)] if centre is None else [(sampler, transform), centre]
    with reading(path), open_it(path) as video:
        clips = [draw_clips(video, sampler, rng) for sampler, _ in parts]
        return read_clips(video, clips, [transform for _, transform in parts], rng, timed)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Makes a VideoError of what a disk or a full memory may raise while a video is opened and read."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the latter is torch's
            raise VideoError(f"{path}: takes more memory to read than there is for it here") from error
        if isinstance(error, RuntimeError):
            raise
        raise VideoError(f"{path}: {type(error).__name__} while it was read: {error}") from error


def draw_clips(video: VideoReader, sampler: ClipSampler, rng: np.random.Generator) -> IntArray:
    """The frames (num_clips, T) of a video that a sampler chooses.

    Raises:
        VideoError: the video is too short for the sampler.
    """
    try:
        return sampler(len(video), rng, video.times if sampler.target_fps else None)
    except ValueError as error:
        raise VideoError(f"{video.path}: {error}") from error


def read_clips(
    video: VideoReader,
    clips: list[IntArray],
    transforms: list[Transform],
    rng: np.random.Generator,
    timed: bool = False,
) -> tuple[Tensor, list[View]]:
    """The views of the frames `clips`, each group (num_clips, T) cropped by its transform; see load_views."""
    views = _Views(clips, transforms, rng)
    video.read(views.wanted, views.take)
    described = views.descriptions(len(clips[0]))
    if timed:
        when = seconds(video, views.clips[views.clip_of_view]).tolist()
        described = [view._replace(seconds=tuple(both)) for view, both in zip(described, when, strict=True)]
    return views.pixels, described


def seconds(video: VideoReader, clips: IntArray) -> NDArray[np.float64]:
    """When the earliest frame of each of `clips` (num_clips, T) begins and the latest ends: (num_clips, 2), in seconds.

    The last frame of the video is shown for one frame period of its average rate.
    """
    ends = np.append(video.times[1:], video.times[-1] + (1 / video.fps if video.fps else 0.0))
    return np.stack([video.times[clips.min(1)], ends[clips.max(1)]], 1)


class _Views:
    """Puts the crops of frames where they belong, as the frames come."""

    def __init__(self, clips: list[IntArray], transforms: list[Transform], rng: np.random.Generator) -> None:
        self.clips = np.concatenate(clips)  # (num_clips, T), the extra one last
        self.wanted, self.places = np.unique(self.clips, return_inverse=True)
        self.parts = [(len(part), transform) for part, transform in zip(clips, transforms, strict=True)]
        self.rng = rng
        self.cuts: list[Cut] = []  # of each clip; drawn when the size of the frames is known
        self.first_views: list[int] = []  # of each clip
        self.uses: list[tuple[Cut, dict[int, list[tuple[int, int]]]]] = []  # see _group
        self.pixels = torch.empty(0, dtype=torch.uint8)

    def take(self, place: int, frames: Frames) -> None:
        """See VideoReader.read."""
        if not self.cuts:
            self._draw(frames.shape[1], frames.shape[2])
        for cut, uses in self.uses:
            offsets = [offset for offset in range(len(frames)) if place + offset in uses]
            if not offsets:
                continue
            images = cut.resize(frames if len(offsets) == len(frames) else frames[offsets])
            for offset, image in zip(offsets, images, strict=True):
                for clip, time in uses[place + offset]:
                    for view, crop in enumerate(self.cuts[clip].crops(image), self.first_views[clip]):
                        self.pixels[view, :, time] = crop

    @property
    def clip_of_view(self) -> IntArray:
        """The place of each view's clip in `clips`: (num_views,)."""
        return np.repeat(np.arange(len(self.clips)), [len(cut.corners) for cut in self.cuts])

    def descriptions(self, num_own: int) -> list[View]:
        """What the views are; clips from `num_own` on are extra."""
        return [
            View(number if number < num_own else EXTRA_CLIP, crop, int(clip[0]), int(clip[-1]))
            for number, (clip, cut) in enumerate(zip(self.clips, self.cuts, strict=True))
            for crop in range(len(cut.corners))
        ]

    def _draw(self, height: int, width: int) -> None:
        for num_clips, transform in self.parts:
            self.cuts += transform.draw_clips(height, width, num_clips, self.rng)
        *self.first_views, num_views = np.cumsum([0, *(len(cut.corners) for cut in self.cuts)]).tolist()
        side, num_frames = self.cuts[0].crop_size, self.clips.shape[1]
        self.pixels = torch.empty(num_views, 3, num_frames, side, side, dtype=torch.uint8)
        self.uses = self._group()

    def _group(self) -> list[tuple[Cut, dict[int, list[tuple[int, int]]]]]:
        """For each size that frames are resized to: place of a frame -> (clip, time) wherever that is needed."""
        groups: dict[object, tuple[Cut, dict[int, list[tuple[int, int]]]]] = {}
        for use, place in enumerate(self.places.reshape(-1).tolist()):
            clip, time = divmod(use, self.clips.shape[1])
            cut = self.cuts[clip]
            _, uses = groups.setdefault((cut.region, cut.size), (cut, {}))
            uses.setdefault(place, []).append((clip, time))
        return list(groups.values())


def load_test_views(path: str | Path, preprocessing: Preprocessing) -> Tensor:
    """The views of the preprocessing, which inference scores; see load_views."""
    return load_views(path, *even_views(preprocessing), np.random.default_rng(0))[0]


def even_views(preprocessing: Preprocessing) -> tuple[ClipSampler, Transform]:
    """The sampler and the transform of inference, and of testing where no other protocol is chosen."""
    p = preprocessing
    sampler = UniformClips(p.num_frames, p.frame_stride, p.num_clips, p.target_fps, p.short)
    return sampler, EvenCrops(p.short_side, p.crop_size, p.num_crops)


def stream_clips(
    video: VideoReader, clips: IntArray, transform: Transform, consume: Callable[[int, Tensor], None]
) -> None:
    """Decodes a video once and hands on its clips one by one, so that a long video need not be in memory.

    Args:
        video: open.
        clips: frames (num_clips, T) of clips each of which begins and ends no earlier than the one before.
        transform: resizes and crops them; must not draw.
        consume: called with a clip's number and its views uint8 (num_crops, 3, T, H, W). Numbers rise, but once may
            begin again at 0, when decoding has to start over: what was given before is void then.

    Raises:
        VideoError: the video cannot be read.
    """
    wanted, places = np.unique(clips, return_inverse=True)
    places = places.reshape(clips.shape)
    firsts, lasts = places.min(1), places.max(1)
    held: dict[int, Tensor] = {}  # the crops (num_crops, 3, H, W) of frames that clips to come need, by place
    number, cut = 0, None

    def take(start: int, frames: Frames) -> None:
        nonlocal number, cut
        if start == 0:
            held.clear()
            number, cut = 0, transform.draw(frames.shape[1], frames.shape[2], np.random.default_rng(0))
        assert cut is not None
        for place, image in enumerate(cut.resize(frames), start):
            held[place] = torch.stack(cut.crops(image))
            while number < len(clips) and lasts[number] == place:
                consume(number, torch.stack([held[needed] for needed in places[number].tolist()], 2))
                number += 1
                for done in range(min(held), firsts[number] if number < len(clips) else place):
                    del held[done]

    video.read(wanted, take)
