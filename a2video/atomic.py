"""Files that appear whole or not at all, and the folders for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from a2video.errors import InputError


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` make a file beside `path`, puts it on the disk for certain, and then gives it its name.

    Raises:
        InputError: the disk is full, or the folder may not be written to.
    """
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")  # a name has its limit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): make room for it") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """See write_whole. What is no text, in a file's name, is written as JSON has it: \\udcff."""
    return write_whole(
        path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    )


def make_folder(folder: Path, name: str) -> None:
    """Makes the folder for what will be written.

    Args:
        folder: may be there.
        name: the option that gives it.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{name} {folder} cannot be written to ({error.strerror}): choose another") from error
