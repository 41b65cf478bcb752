"""What a reader of frames owes, and which one opens a file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from a2video.data.metadata import MetadataCache, VideoRecord
from a2video.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # whatever a file is called: Pillow runs Ghostscript for PostScript

MAX_PIXELS = 8192 * 8192  # of a frame; damaged headers claim more, and decoders believe them
CHUNK_BYTES = 2 << 20  # full-size frames resized together

Frames = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[np.integer]


class VideoError(InputError):
    """A video that cannot be read: one sentence naming the file, what was found and what to do."""


class StartOverError(Exception):
    """Decoding did not give the frames that were promised; the reader will go about it in another way."""


class VideoReader(ABC):
    """The frames of one video, numbered 0 ... len - 1 in presentation order. Close it after use.

    Args:
        path: the file.
        record: what a metadata cache knows about it; a reader that has no use for it ignores it.

    Raises:
        VideoError: it is no file, no video, or a video without a single frame.
    """

    path: Path
    fps: float
    """Average frames per second; 0.0 if the file does not tell."""

    @abstractmethod
    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None: ...

    @abstractmethod
    def __len__(self) -> int:
        """The number of frames, at least 1."""

    @property
    @abstractmethod
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, in seconds after the first one: (len,), rising."""

    @abstractmethod
    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        """Yields the frames `wanted`, rising numbers, each (H, W, 3) and upright, in one pass.

        Raises:
            StartOverError: what it has yielded may be wrong, and calling it again will do better.
            VideoError: see read.
        """

    @abstractmethod
    def close(self) -> None:
        """Releases the file. The reader cannot be used afterwards."""

    def read(self, wanted: Indices, consume: Callable[[int, Frames], None]) -> None:
        """Decodes frames in one pass and hands them on a few at a time, so that they need not be kept at full size.

        Args:
            wanted: frame numbers in [0, len), each greater than the one before.
            consume: called with a place in `wanted` and RGB frames (N, H, W, 3), upright: those of the N numbers from
                that place on. It must not keep them. Places rise, but once may begin again at 0, when decoding has to
                start over: what was given before is void then.

        Raises:
            ValueError: `wanted` is empty or does not rise.
            IndexError: a number is outside [0, len).
            VideoError: a frame, or one that has to be decoded before it, is damaged or missing.
        """
        numbers = np.asarray(wanted, dtype=np.int64)
        if len(numbers) == 0 or (np.diff(numbers) <= 0).any():
            raise ValueError(f"expected rising frame numbers, at least one, got {numbers.tolist()}")
        if numbers[0] < 0 or numbers[-1] >= len(self):
            outside = numbers[0] if numbers[0] < 0 else numbers[-1]
            raise IndexError(f"frame {outside} is outside [0, {len(self)}), the frames of {self.path}")
        try:
            _hand_on(self._decode(numbers.tolist()), len(numbers), consume)
        except StartOverError:
            _hand_on(self._decode(numbers.tolist()), len(numbers), consume)

    def get_frames(self, indices: Indices) -> NDArray[np.uint8]:
        """Reads frames at full size.

        Args:
            indices: T frame numbers in [0, len), in any order; repeats are allowed.

        Returns:
            RGB (T, H, W, 3) in the order asked, upright.

        Raises:
            ValueError: `indices` is empty, or no list of whole numbers.
            IndexError, VideoError: see read.
        """
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"expected a list of whole numbers, got {given.dtype} of shape {given.shape}")
        wanted, places = np.unique(given.astype(np.int64), return_inverse=True)
        images = np.empty((0, 0, 0, 3), np.uint8)

        def keep(place: int, frames: Frames) -> None:
            nonlocal images
            if place == 0:
                images = np.empty((len(wanted), *frames.shape[1:]), np.uint8)
            images[place : place + len(frames)] = frames

        self.read(wanted, keep)
        is_as_asked = len(wanted) == len(places) and bool((places == np.arange(len(wanted))).all())
        return images if is_as_asked else images[places]  # no second copy where it can be had

    def __enter__(self) -> VideoReader:
        """Returns the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the reader."""
        self.close()


def _hand_on(frames: Iterator[Frames], num: int, consume: Callable[[int, Frames], None]) -> None:
    """Gives `num` frames (H, W, 3) to `consume`: small ones a few together, whose resizing is worth a copy.

    Takes all that `frames` has to give, for what comes after the last one may be an error in it.
    """
    chunk = np.empty((0, 0, 0, 3), np.uint8)  # made when the size is known
    for place, frame in enumerate(frames):
        if place == 0:
            chunk = np.empty((min(num, CHUNK_BYTES // frame.nbytes), *frame.shape), np.uint8)
        if len(chunk) < 2:
            consume(place, np.ascontiguousarray(frame)[None])  # turned ones are views with negative strides
            continue
        number = place % len(chunk)
        chunk[number] = frame
        if number + 1 == len(chunk) or place + 1 == num:
            consume(place - number, chunk[: number + 1])


def open_video(
    path: str | os.PathLike[str], reader: type[VideoReader] | None = None, cache: MetadataCache | None = None
) -> VideoReader:
    """Opens a local video file, or a picture as a video of one frame.

    Args:
        path: the file.
        reader: which reader opens videos; PyAVReader when None.
        cache: metadata that data_prep/verify.py collected, which saves the reader from looking through the file.

    Raises:
        VideoError: it is no file, no video, or a video without a single frame.
    """
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path)
    if reader is None:
        from a2video.data.pyav_reader import PyAVReader

        reader = PyAVReader
    return reader(path, cache.get(path) if cache else None)


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that exists.

    Raises:
        VideoError: it does not.
    """
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for names that no file can have)
        found = "is not a file" if os.path.exists(path) else "does not exist"  # noqa: PTH110
        raise VideoError(f"{path}: {found}; give the path of a local video file")
    return Path(path)


class ArrayReader(VideoReader):
    """Frames in memory as a video.

    Args:
        frames: uint8 RGB (T, H, W, 3), upright.
        fps: frames in a second.

    Raises:
        InputError: these are no such frames, or fps is not positive.
    """

    NAME = "<frames>"  # its path

    def __init__(self, frames: Any, fps: float | None) -> None:
        """Checks them."""
        self._frames = np.asarray(frames)
        if self._frames.dtype != np.uint8 or self._frames.ndim != 4 or self._frames.shape[3] != 3:
            raise InputError(
                f"expected frames uint8 RGB (T, H, W, 3), got {self._frames.dtype} of shape {self._frames.shape}"
            )
        if self._frames.size == 0:
            raise InputError(f"expected at least one frame of at least one pixel, got shape {self._frames.shape}")
        if fps is None or not 0 < fps < np.inf:
            raise InputError(f"give fps, the frames in a second, with frames in memory: a positive number, not {fps}")
        self.path = Path(self.NAME)
        self.fps = fps

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._frames)

    @property
    def times(self) -> NDArray[np.float64]:
        """Even."""
        return np.arange(len(self)) / self.fps

    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        for number in wanted:
            yield self._frames[number]

    def close(self) -> None:
        """Does nothing: the frames are the caller's."""


class ImageReader(VideoReader):
    """A picture as a video of one frame, turned upright."""

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        """Decodes the picture."""
        self.path = Path(path)
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, and the most is {MAX_PIXELS:,}")
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):  # 16 bits gray, which convert() would clip instead of scale
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                self._frame = np.array(upright.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            found = "does not exist" if isinstance(error, FileNotFoundError) else "is no picture that can be decoded"
            raise VideoError(f"{path}: {found}; get the file again or leave it out of the list") from error
        self.fps = 0.0

    def __len__(self) -> int:
        """1."""
        return 1

    @property
    def times(self) -> NDArray[np.float64]:
        """Zero."""
        return np.zeros(1)

    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        yield self._frame

    def close(self) -> None:
        """Does nothing: the file is closed already."""
