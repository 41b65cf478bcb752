"""What a reader of frames owes, and which one opens a file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from a2video.data.metadata import MetadataCache, VideoRecord
from a2video.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
CHUNK_FRAMES, CHUNK_BYTES = 16, 64 << 20  # full-size frames held at a time

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
    """Average frames per second as the file states it; 0.0 if it does not."""

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
            VideoError: see map_frames.
        """

    @abstractmethod
    def close(self) -> None:
        """Releases the file. The reader cannot be used afterwards."""

    def map_frames(self, indices: Indices, function: Callable[[Frames], Tensor]) -> Tensor:
        """Applies `function` to frames as they are decoded, so that full-size frames need not be kept.

        Args:
            indices: T frame numbers in [0, len), in any order; repeats are allowed.
            function: from a few frames, upright RGB (N, H, W, 3) that it must not keep, to a tensor (N, ...). Each
                frame is decoded once even if `indices` repeats it; all are given again if decoding must start over.

        Returns:
            (T, ...) in the order asked.

        Raises:
            ValueError: `indices` is empty.
            IndexError: a number is outside [0, len).
            VideoError: a frame, or one that has to be decoded before it, is damaged or missing.
        """
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if len(wanted) == 0:
            raise ValueError("indices is empty: ask for at least one frame")
        if wanted[0] < 0 or wanted[-1] >= len(self):
            outside = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise IndexError(f"frame {outside} is outside [0, {len(self)}), the frames of {self.path}")
        try:
            results = _map_chunks(self._decode(wanted.tolist()), len(wanted), function)
        except StartOverError:
            results = _map_chunks(self._decode(wanted.tolist()), len(wanted), function)
        is_as_asked = len(wanted) == len(places) and bool((places == np.arange(len(wanted))).all())
        return results if is_as_asked else results[torch.from_numpy(places)]  # no second copy where it can be had

    def get_frames(self, indices: Indices) -> Frames:
        """Reads frames at full size: RGB (T, H, W, 3) in the order asked.

        Raises:
            ValueError, IndexError, VideoError: as map_frames.
        """
        return self.map_frames(indices, torch.from_numpy).numpy()

    def __enter__(self) -> VideoReader:
        """Returns the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the reader."""
        self.close()


def _map_chunks(frames: Iterator[Frames], num: int, function: Callable[[Frames], Tensor]) -> Tensor:
    """Applies `function` to `num` frames, a few at a time."""
    chunk = np.empty((0, 0, 0, 3), np.uint8)  # made when the size is known
    results = torch.empty(0)
    num_held = num_done = 0
    for frame in frames:
        if len(chunk) == 0:
            chunk = np.empty((max(1, min(CHUNK_FRAMES, num, CHUNK_BYTES // frame.nbytes)), *frame.shape), np.uint8)
        chunk[num_held] = frame
        num_held += 1
        if num_held == len(chunk) or num_done + num_held == num:
            result = function(chunk[:num_held])
            if num_done == 0:
                results = torch.empty(num, *result.shape[1:], dtype=result.dtype)
            results[num_done : num_done + num_held] = result
            num_done, num_held = num_done + num_held, 0
    return results


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


class ImageReader(VideoReader):
    """A picture as a video of one frame, turned upright."""

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        """Decodes the picture."""
        self.path = Path(path)
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):  # 16 bits gray, which convert() would clip instead of scale
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                self._frame = np.asarray(upright.convert("RGB"))
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
