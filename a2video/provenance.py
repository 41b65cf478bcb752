"""Where numbers come from: checksums, versions, commit and hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("a2video", "torch", "lightning", "av", "numpy")


def file_sha256(path: str | Path) -> str:
    """Of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths have in common, absolute."""
    return os.path.commonpath([Path(path).absolute().parent for path in paths])


def list_sha256(paths: Sequence[str], labels: Sequence[int], class_names: Sequence[str]) -> str:
    """Of the videos' paths, from the folder that all have in common, and their labels.

    It is the same wherever the videos lie, and for lists of any format that name the same videos in the same order.
    """
    folder = common_folder(paths)
    digest = hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        relative = os.path.relpath(path, folder)
        name = class_names[label] if label >= 0 else ""
        digest.update(f"{relative}\t{name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what takes part in a test."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def commit() -> str | None:
    """Of the git checkout that this package is run from, with `-dirty` where files differ; None if there is none."""
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # this file's repository, not one around an environment
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware(device: torch.device) -> str:
    """The name of the GPU or CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
