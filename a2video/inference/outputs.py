"""Where results go: to the screen, or to a file that is only ever appended to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from a2video.errors import InputError
from a2video.inference.classifier import Prediction
from a2video.inference.formats import Format, one_line
from a2video.inference.timeline import Timeline


class Results:
    """Takes results one by one, each written at once.

    With a file, what stands in it stays: its videos are done. A result that was cut off by a crash is removed. The file
    is locked, so that no other process appends to it at the same time.

    Args:
        format: of the results.
        file: appended to; the screen when None.
        model: what the results come from, written with each; a file with results of another model is refused.
        overwrite: begin the file anew.

    Attributes:
        done: the videos whose results are in the file.
        num_errors: how many of them could not be read.

    Raises:
        InputError: the file is of something else or in use, or cannot be written.
    """

    def __init__(self, format: Format, file: Path | None = None, model: str = "", overwrite: bool = False) -> None:
        self.format = format
        self.path = file
        self.model = model
        self.done: set[str] = set()
        self.num_errors = 0
        self._file = None
        if file is None:
            sys.stdout.write(format.header)
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("a+b")
            _lock(self._file.fileno(), file)
            if overwrite:
                self._file.truncate(0)
            self._take_up(file)
        except InputError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise InputError(f"{file} cannot be written ({error.strerror or error}): choose another --out") from error

    def prediction(self, prediction: Prediction) -> None:
        """Of one video."""
        self._write(prediction.path, self.format.prediction(prediction, self.model))

    def timeline(self, timeline: Timeline) -> None:
        """Of one video."""
        self._write(timeline.path, self.format.timeline(timeline, self.model))

    def error(self, path: str, message: str) -> None:
        """Of a video that could not be read."""
        self._write(path, self.format.error(path, message, self.model))

    def is_done(self, path: str) -> bool:
        """Whether the file has this video."""
        return _key(path) in self.done

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, path: str, text: str) -> None:
        if self._file is None:
            sys.stdout.write(_writable(text))
            sys.stdout.flush()
            return
        try:
            _append(self._file.fileno(), _writable(text).encode())
            self.done.add(_key(path))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"{self.path} cannot be written ({reason}): make room, then give the command again"
            ) from error

    def _take_up(self, path: Path) -> None:
        file, end = self._file, 0
        assert file is not None

        def whole_lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                if not line.endswith(b"\n"):  # cut off
                    if not self.format.may_begin_with(line, is_first=end == 0):
                        raise ValueError(f"ends with {line[:80]!r}, which was not written by this command")
                    return
                end += len(line)
                yield line.decode()

        file.seek(0)
        lines = whole_lines()
        try:
            first = next(lines, None)
            for video, model, is_error in self.format.rows(chain([first], lines)) if first is not None else ():
                if model != self.model:
                    raise ValueError(f"has results of the model {model}, and this one is {self.model}")
                self.done.add(_key(video))
                self.num_errors += is_error
        except ValueError as error:
            raise InputError(f"{path} {error}: choose another --out, or begin it anew by --overwrite") from None
        file.truncate(end)
        if not end:
            _append(file.fileno(), self.format.header.encode())


def _append(descriptor: int, data: bytes) -> None:
    """Writes all of it or, where that fails, nothing."""
    end = os.fstat(descriptor).st_size
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _key(path: str) -> str:
    """What a video is known by, whether it is read from JSON or from a table, whose cells have no line ends."""
    return one_line(_writable(path))


def _writable(text: str) -> str:
    r"""The same, with what is no text in a file's name as JSON has it: \udcff."""
    return text.encode("utf-8", "backslashreplace").decode()


def _lock(descriptor: int, path: Path) -> None:
    with suppress(ImportError):  # Windows has no fcntl
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path} is being written by another process: give each its own --out") from error
