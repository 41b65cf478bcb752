"""Frames through torchcodec, for comparison: exact in most files with time stamps (README: which reader for what)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2video.data.metadata import VideoRecord
from a2video.data.readers import Frames, VideoError, VideoReader, existing_file
from a2video.errors import InputError

CHUNK_FRAMES = 16  # full-size frames held at a time


def import_decoder() -> Any:
    """torchcodec's VideoDecoder.

    Raises:
        InputError: the package is not installed or does not load.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"TorchCodecReader needs torchcodec, which does not load ({_line(error)}): install a build for this torch, "
            f"and FFmpeg's shared libraries (apt-get install ffmpeg), or leave data.reader at PyAVReader"
        ) from error
    return VideoDecoder


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")


class TorchCodecReader(VideoReader):
    """Reads with torchcodec on one thread, in its exact seek mode: opening reads all packets.

    Needs FFmpeg's shared libraries on the machine. Seen to work beside torch 2.13: 0.11.1 to 0.13.0.
    """

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        """Opens `path`; raises as `open_video` does."""
        decoder = import_decoder()
        self.path = existing_file(path)
        try:
            self._decoder = decoder(str(self.path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise VideoError(f"{path}: torchcodec finds no video ({_line(error)}); get the file again") from error
        self._num_frames = len(self._decoder)
        if self._num_frames == 0:
            raise VideoError(f"{path}: has no frames; get the file again or leave it out of the list")
        self.fps = float(self._decoder.metadata.average_fps_from_header or 0.0)

    def __len__(self) -> int:
        """The number of packets with pictures, which torchcodec takes for that of frames."""
        return self._num_frames

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Presentation times in seconds after the first one. The first use decodes the whole video."""
        starts: NDArray[np.float64] = np.concatenate([seconds for _, seconds in self._batches(range(len(self)))])
        starts -= starts[0]
        return starts

    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        for frames, _ in self._batches(wanted):
            yield from frames

    def _batches(self, wanted: Sequence[int]) -> Iterator[tuple[Frames, NDArray[np.float64]]]:
        """Yields frames and their times, a few at a time."""
        if self._decoder is None:
            raise ValueError(f"the reader of {self.path} is closed")
        for first in range(0, len(wanted), CHUNK_FRAMES):
            numbers = list(wanted[first : first + CHUNK_FRAMES])
            try:
                batch = self._decoder.get_frames_at(numbers)
            except (RuntimeError, ValueError, IndexError) as error:
                found = f"torchcodec cannot read frames {numbers[0]} to {numbers[-1]} ({_line(error)})"
                raise VideoError(f"{self.path}: {found}; re-encode it or leave it out of the list") from error
            yield batch.data.numpy(), batch.pts_seconds.numpy()

    def close(self) -> None:
        """Releases the file."""
        self._decoder = None
