"""Frames through decord 0.6, for comparison: exact only in plain files (README: which reader for what)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2video.data.metadata import VideoRecord
from a2video.data.readers import Frames, VideoError, VideoReader, existing_file
from a2video.errors import InputError

CHUNK_FRAMES = 16  # full-size frames held at a time
ANY_FAULT = 1e-9  # of the frames: decord's limit for frames that it silently replaces by the one before


def import_decord() -> Any:
    """The package, whose "bridges" (what arrays it returns, for the whole process) are left as they are.

    Raises:
        InputError: it is not installed or does not load.
    """
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"DecordReader needs decord, which does not load ({_line(error)}): "
            f"pip install decord, or leave data.reader at PyAVReader"
        ) from error
    return decord


def _line(error: BaseException) -> str:
    """The cause in an error of decord's, without the times, places and stack around it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\[[\d:]+\] \S+: |\[/[^]]*\]|Check failed: ", "", line).rstrip(".: ")


class DecordReader(VideoReader):
    """Reads with decord on one thread, always by path: decord dies on damaged files that it is given as bytes.

    A container that states more frames than it holds can make decord wait for ever in a call that keeps Python's
    lock; only the end of the process helps then, which a data loader with a time limit brings about.
    """

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        """Opens `path`; raises as `open_video` does."""
        self._decord = import_decord()
        limit = self._decord.DECORDLimitReachedError
        self._errors = (self._decord.DECORDError, limit, AssertionError, RuntimeError)
        self.path = existing_file(path)
        try:
            self._video = self._decord.VideoReader(
                str(self.path), ctx=self._decord.cpu(0), num_threads=1, fault_tol=ANY_FAULT
            )
        except self._errors as error:
            raise VideoError(f"{path}: decord finds no video ({_line(error)}); get the file again") from error
        self._num_frames = len(self._video)
        self.fps = float(self._video.get_avg_fps())

    def __len__(self) -> int:
        """The number of frames that decord expects."""
        return self._num_frames

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Presentation times in seconds after the first one; even at `fps` where the file has none (AVI)."""
        starts: NDArray[np.float64] = self._opened().get_frame_timestamp(range(len(self)))[:, 0].astype(np.float64)
        if not (np.isfinite(starts).all() and (np.diff(starts) > 0).all()):
            return np.arange(len(self)) / (self.fps or 25.0)
        starts -= starts[0]
        return starts

    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        video = self._opened()
        for first in range(0, len(wanted), CHUNK_FRAMES):
            numbers = list(wanted[first : first + CHUNK_FRAMES])
            try:
                batch = video.get_batch(numbers)
            except self._errors as error:
                found = f"decord cannot read frames {numbers[0]} to {numbers[-1]} ({_line(error)})"
                raise VideoError(f"{self.path}: {found}; re-encode it or leave it out of the list") from error
            # another caller's bridge may have chosen the kind of array
            yield from np.asarray(batch.asnumpy() if hasattr(batch, "asnumpy") else batch)

    def _opened(self) -> Any:
        if self._video is None:
            raise ValueError(f"the reader of {self.path} is closed")
        return self._video

    def close(self) -> None:
        """Releases the file."""
        self._video = None
