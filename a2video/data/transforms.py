"""From decoded frames to the clips a network gets: resize, crop, flip on uint8, then normalisation on the device."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2video.data.samplers import Short
from a2video.errors import InputError

NUM_CROPS = (1, 3)
LIMITS = {  # least and most: beyond, a number is a mistake, or meant to fill the memory of whom a checkpoint is given
    "num_frames": (1, 4096),
    "frame_stride": (0, 100_000),
    "short_side": (1, 8192),
    "crop_size": (1, 8192),
    "num_clips": (1, 10_000),
    "num_crops": (1, max(NUM_CROPS)),
}
MAX_BYTES = 1 << 32  # of all views of a video
MAX_FPS = 10_000


@dataclass(frozen=True)
class Preprocessing:
    """Everything between a video file and the network's input, and the views a test takes; kept in checkpoints.

    The same object serves validation, testing, prediction and inference.

    Attributes:
        num_frames: frames in a clip (T).
        frame_stride: source frames from one clip frame to the next; 0 repeats one frame.
        short_side: pixels of the frame's shorter side after the aspect-true resize, before cropping.
        crop_size: pixels of the square that the network sees, at most short_side.
        num_clips: clips of each video in testing, spread evenly over it.
        num_crops: 1 (centre) or 3 (spread along the longer side) crops of each clip in testing.
        mean: of red, green and blue, for values in [0, 1]; the default is the first author's.
        std: likewise.
        target_fps: frames in a second that every video is seen with (see ClipSampler); as they are when None.
        short: what a clip of a video shorter than its span takes: "loop", "repeat_last" or "error" (see ClipSampler).

    Raises:
        InputError: a value is out of range.
    """

    num_frames: int = 8
    frame_stride: int = 8
    short_side: int = 256
    crop_size: int = 224
    num_clips: int = 10
    num_crops: int = 3
    mean: tuple[float, float, float] = (124 / 255, 117 / 255, 104 / 255)
    std: tuple[float, float, float] = (1 / (0.0167 * 255),) * 3
    target_fps: float | None = None
    short: Short = "loop"

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"preprocessing.{name} must be an integer, got {str(value)[:80]}")
            if value < least:
                raise InputError(f"preprocessing.{name} must be at least {least}, got {value}")
            if value > most:
                raise InputError(f"preprocessing.{name} must be at most {most}, got {str(value)[:80]}")
        if self.crop_size > self.short_side:
            raise InputError(
                f"preprocessing.crop_size ({self.crop_size}) must not exceed short_side ({self.short_side})"
            )
        if self.num_crops not in NUM_CROPS:
            raise InputError(f"preprocessing.num_crops must be 1 or 3, got {self.num_crops}")
        num_bytes = 3 * self.num_views * self.num_frames * self.crop_size**2
        if num_bytes > MAX_BYTES:
            raise InputError(
                f"preprocessing: {self.num_views} views of {self.num_frames} frames of {self.crop_size} x "
                f"{self.crop_size} pixels take {num_bytes / 2**30:.0f} GiB, and {MAX_BYTES >> 30} are the most "
                "for a video: take fewer"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if (
                not isinstance(values, tuple | list)
                or len(values) != 3
                or not all(_is_number(value) for value in values)
            ):
                raise InputError(f"preprocessing.{name} must be three numbers, got {str(values)[:80]}")
        if min(self.std) <= 0:
            raise InputError(f"preprocessing.std must be positive, got {self.std}")
        fps = self.target_fps
        if fps is not None and not (_is_number(fps) and fps > 0):
            raise InputError(f"preprocessing.target_fps must be positive, got {str(fps)[:80]}")
        if fps is not None and fps > MAX_FPS:
            raise InputError(f"preprocessing.target_fps must be at most {MAX_FPS}, got {fps}")
        if self.short not in get_args(Short):
            raise InputError(f"preprocessing.short must be loop, repeat_last or error, got {str(self.short)[:80]!r}")

    @property
    def num_views(self) -> int:
        """Views of each video in testing."""
        return self.num_clips * self.num_crops

    @property
    def one_view(self) -> Preprocessing:
        """The same with one centre view of each video."""
        return dataclasses.replace(self, num_clips=1, num_crops=1)

    def normalize(self, clips: Tensor) -> Tensor:
        """Clips (..., 3, T, H, W) in [0, 255] -> torch's default type, zero mean and unit deviation, same device."""
        mean, std = (
            torch.tensor(values, device=clips.device).view(3, 1, 1, 1) * 255 for values in (self.mean, self.std)
        )
        return (clips.to(mean.dtype) - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of to_dict.

        Raises:
            InputError: a value is missing, unknown or out of range.
        """
        try:
            return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})  # type: ignore[arg-type]
        except (TypeError, AttributeError) as error:
            raise InputError(f"these are not preprocessing settings of this version of a2video: {error}") from error


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that float32 has a place for."""
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < 1e30


@dataclass(frozen=True)
class Cut:
    """What is taken of every frame of a video: a region, resized, and square crops of that.

    Attributes:
        region: top, left, height and width in pixels of the frame.
        size: height and width to which the region is resized.
        corners: (top, left) of each crop in the resized region.
        crop_size: side of the crops in pixels.
        is_mirrored: left and right change places.
    """

    region: tuple[int, int, int, int]
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    crop_size: int
    is_mirrored: bool = False

    def resize(self, frames: NDArray[np.uint8]) -> Tensor:
        """The region of frames uint8 (N, H, W, 3) -> uint8 (N, 3, *size)."""
        top, left, height, width = self.region
        region = torch.from_numpy(frames)[:, top : top + height, left : left + width]
        return resize(region.permute(0, 3, 1, 2), self.size)

    def crops(self, image: Tensor) -> list[Tensor]:
        """The crops, each (3, crop_size, crop_size), of an image that `resize` gave."""
        side = self.crop_size
        crops = [image[:, top : top + side, left : left + side] for top, left in self.corners]
        return [crop.flip(-1) for crop in crops] if self.is_mirrored else crops


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (N, 3, H, W) -> uint8 (N, 3, *size), bilinear with antialiasing; the one filter of training and testing."""
    if images.shape[2:] == size:
        return images
    return torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size whose shorter side is `short_side` pixels, aspect kept."""
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))


def check_probability(horizontal_flip: float) -> float:
    """The value itself, if it is in [0, 1]."""
    if not 0 <= horizontal_flip <= 1:
        raise InputError(f"horizontal_flip is a probability in [0, 1], got {horizontal_flip}")
    return horizontal_flip


class Transform(ABC):
    """Decides what of a video's frames the network sees.

    Attributes:
        num_crops: crops of each clip.
        squash: whether frames are resized to a square whatever their aspect.
    """

    num_crops = 1
    squash = False

    @abstractmethod
    def draw(self, height: int, width: int, rng: np.random.Generator) -> Cut:
        """What to take of frames of `height` x `width` pixels; every frame of a clip gets the same.

        Args:
            height: of the upright frames.
            width: likewise.
            rng: the only source of randomness.
        """

    def draw_clips(self, height: int, width: int, num_clips: int, rng: np.random.Generator) -> list[Cut]:
        """What to take of each clip of one video; here all get the same. See draw."""
        return [self.draw(height, width, rng)] * num_clips


class RandomCrop(Transform):
    """Short side drawn from a range of pixels, a random square of it, mirrored with a probability; for training."""

    def __init__(self, short_side: tuple[int, int], crop_size: int, horizontal_flip: float) -> None:
        if not crop_size <= short_side[0] <= short_side[1]:
            raise InputError(
                f"expected crop_size <= smallest <= largest short side, got {crop_size}, {short_side[0]} and "
                f"{short_side[1]}"
            )
        self.short_side = short_side
        self.crop_size = crop_size
        self.horizontal_flip = check_probability(horizontal_flip)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Cut:
        """One crop; see Transform."""
        size = short_side_size(height, width, int(rng.integers(*self.short_side, endpoint=True)))
        top, left = (int(rng.integers(0, side - self.crop_size, endpoint=True)) for side in size)
        is_mirrored = rng.random() < self.horizontal_flip
        return Cut((0, 0, height, width), size, ((top, left),), self.crop_size, is_mirrored)


class RandomArea(Transform):
    """A random share of the frame's area at an aspect of 3/4 to 4/3, scaled to the crop size, perhaps mirrored.

    The training augmentation of ImageNet (Szegedy et al., CVPR 2015); ten tries, then the centre square.
    """

    def __init__(self, area: tuple[float, float], crop_size: int, horizontal_flip: float) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise InputError(f"train_area is a smallest and a largest share in (0, 1], got {area[0]} and {area[1]}")
        self.area = area
        self.crop_size = crop_size
        self.horizontal_flip = check_probability(horizontal_flip)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Cut:
        """One crop; see Transform."""
        region = self._region(height, width, rng)
        is_mirrored = rng.random() < self.horizontal_flip
        return Cut(region, (self.crop_size, self.crop_size), ((0, 0),), self.crop_size, is_mirrored)

    def _region(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            rows, columns = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                top, left = rng.integers(height - rows, endpoint=True), rng.integers(width - columns, endpoint=True)
                return int(top), int(left), rows, columns
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


class EvenCrops(Transform):
    """One centre square, or three squares spread along the longer side; for validation, testing and inference.

    Args:
        short_side: pixels.
        crop_size: pixels, at most short_side.
        num_crops: 1 or 3.
        squash: resize to a square of short_side whatever the aspect; the aspect is kept when False.
    """

    def __init__(self, short_side: int, crop_size: int, num_crops: int = 1, squash: bool = False) -> None:
        if num_crops not in NUM_CROPS:
            raise InputError(f"num_crops must be 1 or 3, got {num_crops}")
        self.short_side = short_side
        self.crop_size = crop_size
        self.num_crops = num_crops
        self.squash = squash

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Cut:
        """num_crops crops, left to right or top to bottom; see Transform."""
        size = (self.short_side,) * 2 if self.squash else short_side_size(height, width, self.short_side)
        free_top, free_left = (side - self.crop_size for side in size)
        corners = []
        for part in range(self.num_crops):
            along = [
                free * part // (self.num_crops - 1) if self.num_crops > 1 else free // 2
                for free in (free_top, free_left)
            ]
            corners.append((along[0], free_left // 2) if free_top > free_left else (free_top // 2, along[1]))
        return Cut((0, 0, height, width), size, tuple(corners), self.crop_size)


class RandomCrops(Transform):
    """Squares drawn anew for each clip, never mirrored: how the first author tests.

    Args:
        short_side: pixels.
        crop_size: pixels, at most short_side.
        num_crops: of each clip.
        squash: see EvenCrops.
        centre_first: the first crop of the first clip is the centre, whatever was drawn for it.
    """

    def __init__(
        self, short_side: int, crop_size: int, num_crops: int = 1, squash: bool = False, centre_first: bool = False
    ) -> None:
        self.centre = EvenCrops(short_side, crop_size, squash=squash)
        self.squash = squash
        self.num_crops = num_crops
        self.centre_first = centre_first

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Cut:
        """The crops of one clip; see Transform."""
        centre = self.centre.draw(height, width, rng)
        free = [side - centre.crop_size for side in centre.size]
        corners = rng.integers(0, free, (self.num_crops, 2), endpoint=True).tolist()
        return dataclasses.replace(centre, corners=tuple((top, left) for top, left in corners))

    def draw_clips(self, height: int, width: int, num_clips: int, rng: np.random.Generator) -> list[Cut]:
        """Other crops for each clip; see Transform."""
        cuts = [self.draw(height, width, rng) for _ in range(num_clips)]
        if self.centre_first:
            corners = (*self.centre.draw(height, width, rng).corners, *cuts[0].corners[1:])
            cuts[0] = dataclasses.replace(cuts[0], corners=corners)
        return cuts
