"""Checkpoint files that are whole or not there: how they are written, and which one to go on from."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from a2video.errors import InputError
from a2video.inference.weights import read_checkpoint

LAST, BEST = "last.ckpt", "best.ckpt"
OURS = re.compile(r"(last|last-\d+|best)\.ckpt")  # the names that a run gives
PART = ".part"  # ends the name of a file that is being written


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, on the disk for certain, and then gives it its name.

    A full disk or a kill at any moment leaves the file that had the name before. When last.ckpt is written, the one
    before it becomes last-1.ckpt, and so on.

    Args:
        num_last: how many are kept of last.ckpt, last-1.ckpt, ...
    """

    def __init__(self, num_last: int = 2) -> None:
        if num_last < 1:
            raise InputError(f"checkpoints.num_last must be at least 1, got {num_last}")
        self.num_last = num_last

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Called by Lightning on the process that writes.

        Raises:
            InputError: the disk is full, or the folder may not be written to.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                _write(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST:
                self._keep_older(path, part)
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}): make room for it, then go on from the last "
                "checkpoint, which is whole"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Called by Lightning for a file that a better one replaces, by its name in the checkpoint gone on with.

        That name is not to be trusted: only a checkpoint that it names straight away is removed, never a folder.
        """
        path = Path(path)
        if path.suffix == ".ckpt" and ".." not in path.parts:
            path.unlink(missing_ok=True)

    def _keep_older(self, last: Path, part: Path) -> None:
        """Gives each kept file the next name; last.ckpt keeps its own beside, where the disk can do that."""
        names = [last, *(last.with_name(f"last-{number}.ckpt") for number in range(1, self.num_last))]
        if len(names) > 1 and last.is_file() and names[1].is_file() and names[1].samefile(last):
            return  # a kill came before last.ckpt was replaced: all have their next names already
        for newer, older in reversed(list(pairwise(names))):
            if newer.is_file() and newer != last:
                newer.replace(older)
            elif newer.is_file():
                link = part.with_suffix(f".link{PART}")
                try:
                    os.link(newer, link)
                except OSError:  # a file system without links: for a moment there is no last.ckpt, but its last-1.ckpt
                    newer.replace(older)
                else:
                    link.replace(older)


def _write(checkpoint: dict[str, Any], file: Any) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's own word for a write that failed
        cause = error.__context__
        raise (cause if isinstance(cause, OSError) else error) from None


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Removes what killed runs have left half written."""
    for part in folder.glob(f".*.ckpt.*{PART}"):
        part.unlink(missing_ok=True)


def run_files(folder: Path) -> list[Path]:
    """The checkpoints of the run in this folder, the newest first by their files' times."""
    ours = [path for path in folder.glob("*.ckpt") if OURS.fullmatch(path.name)]
    return sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)


def remove_run(folder: Path) -> None:
    """Removes the checkpoints of the run that was in this folder, lest a new run falls back to them."""
    for path in run_files(folder):
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Renames a checkpoint that cannot be read, so that it does not become one of those that are kept."""
    try:
        read_checkpoint(path)
    except InputError:
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}.damaged"))


def newest_whole(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint and its content, or where it is damaged the newest one before it, which is then said.

    Only files with the names that a run gives stand in for each other: last.ckpt, last-1.ckpt, ..., best.ckpt.

    Raises:
        InputError: none of them can be read.
    """
    path = Path(path)
    try:
        return path, read_checkpoint(path)
    except InputError as error:
        first = error
    others = [other for other in run_files(path.parent) if other.name != path.name]
    if not OURS.fullmatch(path.name) or not others:
        raise first
    whole = [(other, content) for other in others if (content := _read(other))]
    if not whole:
        raise InputError(
            f"all {1 + len(others)} checkpoints in {path.parent} are damaged ({first}): restore one, or start anew by "
            "--overwrite=true"
        )
    other, content = max(whole, key=_num_steps)
    what = "is damaged" if path.is_file() else "is missing"
    rank_zero_info(f"{path} {what}: going on from the checkpoint before it, {other}")
    return other, content


def newest_finite(folder: Path) -> Path | None:
    """The newest checkpoint of the run in this folder that is whole and has only finite weights."""
    whole = [(path, content) for path in run_files(folder) if (content := _read(path))]
    for path, content in sorted(whole, key=_num_steps, reverse=True):
        weights = content["state_dict"].values()
        if all(torch.isfinite(weight).all() for weight in weights if isinstance(weight, torch.Tensor)):
            return path
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_checkpoint(path)
    except InputError:
        return None


def _num_steps(whole: tuple[Path, dict[str, Any]]) -> int:
    """What tells the newer checkpoint, as clocks do not; of equal ones the order is kept."""
    return int(whole[1].get("global_step", 0))
