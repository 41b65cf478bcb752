"""The same command for each split of a data set, such as the three of UCF-101, and the mean of what they give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from a2video.comparison import comparison_table
from a2video.errors import InputError

PLACE = "{split}"
FOLDER_OPTIONS = ("--trainer.default_root_dir", "--out")
CONFIG_OPTIONS = ("--config", "-c")


def run_splits(splits: Sequence[str], command: Sequence[str]) -> int:
    """Runs `a2video COMMAND` for each split, with {split} replaced in its options, and prints the mean of results.

    Args:
        splits: such as ["1", "2", "3"].
        command: subcommand first; its output folder, in an option or a YAML file of it, is another for each split.

    Returns:
        The exit status of the first run that failed, or 0.

    Raises:
        InputError: there is no command, or all splits would be written to one folder.
    """
    if not command:
        raise InputError("no command to run: give it after --, as in a2video splits 1 2 3 -- test --config ...")
    commands = [[option.replace(PLACE, split) for option in command] for split in splits]
    folders = [_folder(options) for options in commands]
    if None in folders or len({*map(str, folders)}) < len(folders):
        raise InputError(
            f"all splits would be written to one folder, {folders[0] or 'that of no option'}: give "
            f"{' or '.join(FOLDER_OPTIONS)} a folder with {PLACE} in it, or a --config for each"
        )
    for split, options in zip(splits, commands, strict=True):
        print(f"split {split}: a2video {' '.join(options)}", flush=True)
        status = subprocess.run([sys.executable, "-m", "a2video", *options], check=False).returncode
        if status:
            return status
    if command[0] in ("test", "rescore"):
        print(comparison_table([folder for folder in folders if folder], with_mean=True))
    return 0


def _folder(options: Sequence[str]) -> Path | None:
    """Where the command writes its results: of its options and YAML files the last that says so, as when it runs."""
    found = None
    for number, option in enumerate(options):
        name, has_value, value = option.partition("=")
        value = value if has_value else next(iter(options[number + 1 :]), "")
        if name in FOLDER_OPTIONS:
            found = value
        elif name in CONFIG_OPTIONS:
            found = _configured_folder(value) or found
    return Path(found) if found else None


def _configured_folder(config: str) -> str | None:
    """trainer.default_root_dir of a YAML file."""
    try:
        trainer = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["trainer"]
        return None if trainer["default_root_dir"] is None else str(trainer["default_root_dir"])
    except (KeyError, TypeError):
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--config {config} cannot be read: {' '.join(str(error).split())}") from error
