"""The packages that a2video brings with it: what setup.cfg asks for, and what the installed ones ask for in turn."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = ("onnx", "openvino", "int8", "web", "test")
OF_CUDA = ("nvidia-", "cuda-", "triton")  # which torch brings on some machines only, as it needs them


def normal(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: Path = CONSTRAINTS) -> dict[str, str]:
    """Name -> version of a constraints file."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def required(extras: Iterable[str]) -> dict[str, Distribution]:
    """All packages that `a2video[extras]` needs here, directly or not, by their normal names.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting = [Requirement(f"a2video[{','.join(extras)}]")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = normal(wanted.name)
        for extra in ["", *wanted.extras]:
            if (name, extra) in seen or name.startswith(OF_CUDA):
                continue
            seen.add((name, extra))
            if name == "a2video":
                waiting += _own_requirements(extra)
            else:
                found[name] = distribution(wanted.name)
                waiting += _requirements(found[name], extra)
    return found


def _requirements(package: Distribution, extra: str) -> Iterator[Requirement]:
    for text in package.requires or ():
        requirement = Requirement(text)
        is_always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_always if not extra else requirement.marker and requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _own_requirements(extra: str) -> Iterator[Requirement]:
    """Of a2video, from setup.cfg as it is now."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    section = setup["options.extras_require"][extra] if extra else setup["options"]["install_requires"]
    for line in section.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def uv(folder: Path) -> str:
    """The command uv; installed into a virtual environment below `folder` where there is none."""
    if found := shutil.which("uv"):
        return found
    if not (folder / "uv" / "bin" / "uv").is_file():
        subprocess.run([sys.executable, "-m", "venv", folder / "uv"], check=True)
        subprocess.run([folder / "uv" / "bin" / "python", "-m", "pip", "install", "-q", "uv"], check=True)
    return str(folder / "uv" / "bin" / "uv")
