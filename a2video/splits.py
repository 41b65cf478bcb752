"""The same command for each split of a data set, such as the three of UCF-101, and the mean of what they give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from a2video.comparison import comparison_table
from a2video.errors import InputError

PLACE = "{split}"
FOLDER_OPTIONS = ("--trainer.default_root_dir", "--out")


def run_splits(splits: Sequence[str], command: Sequence[str]) -> int:
    """Runs `a2video COMMAND` for each split, with {split} replaced in its options, and prints the mean of results.

    Args:
        splits: such as ["1", "2", "3"].
        command: subcommand first; its output folder has {split} in it.

    Returns:
        The exit status of the first run that failed, or 0.

    Raises:
        InputError: there is no command, or all splits would be written to one folder.
    """
    if not command:
        raise InputError("no command to run: give it after --, as in a2video splits 1 2 3 -- test --config ...")
    folder = _folder(command)
    if folder is None or PLACE not in folder:
        raise InputError(
            f"all splits would be written to one folder: give {' or '.join(FOLDER_OPTIONS)} a folder with {PLACE} in it"
        )
    for split in splits:
        options = [option.replace(PLACE, split) for option in command]
        print(f"split {split}: a2video {' '.join(options)}", flush=True)
        status = subprocess.run([sys.executable, "-m", "a2video", *options], check=False).returncode
        if status:
            return status
    folders = [Path(folder.replace(PLACE, split)) for split in splits]
    if command[0] in ("test", "rescore"):
        print(comparison_table(folders, with_mean=True))
    return 0


def _folder(command: Sequence[str]) -> str | None:
    """Where the command writes its results."""
    found = None
    for number, option in enumerate(command):
        name, has_value, value = option.partition("=")
        if name in FOLDER_OPTIONS:
            found = value if has_value else next(iter(command[number + 1 :]), None)
    return found
