"""What a reader of frames owes, and which one opens a file."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from a2video.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


class VideoError(InputError):
    """A video that cannot be read: one sentence naming the file, what was found and what to do."""


class VideoReader(ABC):
    """The frames of one video, numbered 0 ... len - 1 in presentation order. Close it after use."""

    fps: float
    """Average frames per second as the file states it; 0.0 if it does not."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of frames, at least 1."""

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Presentation times in seconds, shape (len,), from the first frame's."""
        return np.arange(len(self)) / (self.fps or 1.0)  # stands in until the readers know better

    @abstractmethod
    def get_frames(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Read frames, turned upright where the file asks for a rotation.

        Args:
            indices: T frame numbers in [0, len), in any order; repeats are allowed.

        Returns:
            RGB (T, H, W, 3) in the order asked.

        Raises:
            ValueError: `indices` is empty.
            IndexError: A number is outside [0, len).
            VideoError: A frame, or one that has to be decoded before it, is damaged or missing.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the file. The reader cannot be used afterwards."""

    def __enter__(self) -> "VideoReader":
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the reader."""
        self.close()


def open_video(path: str | os.PathLike[str]) -> VideoReader:
    """Open a local video file, or a picture as a video of one frame.

    Raises:
        VideoError: It is no file, no video, or a video without a single frame.
    """
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path)
    from a2video.data.pyav_reader import PyAVReader

    return PyAVReader(path)


def check_indices(path: str | os.PathLike[str], indices: Sequence[int] | npt.NDArray[np.integer], num: int) -> None:
    """Raise as `VideoReader.get_frames` says, for a file of `num` frames."""
    if len(indices) == 0:
        raise ValueError("indices is empty: ask for at least one frame")
    for index in indices:
        if not 0 <= index < num:
            raise IndexError(f"frame {index} is outside [0, {num}), the frames of {path}")


class ImageReader(VideoReader):
    """A picture as a video of one frame, turned upright."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Decode the picture; raises as `open_video` does."""
        self._path = path
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
        """Return 1."""
        return 1

    def get_frames(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Give the picture as often as asked for."""
        check_indices(self._path, indices, len(self))
        return np.repeat(self._frame[None], len(indices), axis=0)

    def close(self) -> None:
        """Do nothing: the file is closed already."""
