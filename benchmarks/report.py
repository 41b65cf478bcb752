"""What every benchmark's result says about where and how it was measured, and the tables it is written in."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def circumstances(packages: Sequence[str]) -> str:
    """Hardware, versions, commit and date as a list in markdown."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    changes = " with changes" if _git("diff", "HEAD", "../a2video") else ""
    return "\n".join(
        [
            f"- {cpu}, {len(_cores())} cores, {platform.platform()}",
            f"- Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in packages),
            f"- commit {_git('rev-parse', '--short', 'HEAD')}{changes}, {datetime.now(UTC):%Y-%m-%d}",
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(name: str, text: str, folder: Path = RESULTS) -> Path:
    """Writes a result to benchmarks/results/, or another folder, and says so."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text(text + "\n", encoding="utf-8")
    print(text, f"\nWrote {path}", sep="\n")
    return path


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent, check=True
    ).stdout.strip()
