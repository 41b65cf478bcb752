"""The data of ablation.py: generated motion, and small copies of videos."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MOTIONS = {  # groups of classes of data_prep/motion.py
    "one object": ("right", "down", "left", "up", "clockwise", "counterclockwise"),
    "two objects": ("same_way", "opposite_ways", "follow"),
}
IN_MEMORY = ("--data.reader", "memory_reader.MemoryReader")  # options of `a2video fit` and `test`
WAYS = {"same or opposite": ("same_way", "opposite_ways")}  # told by comparing two objects, also those of the easy kind


@dataclass(frozen=True)
class Motion:
    """Generated videos: see data_prep/motion.py for the difficulty."""

    difficulty: str
    num_train: int
    num_test: int

    @property
    def described(self) -> str:
        """In words."""
        return f"{self.num_train:,} videos of the {self.difficulty} kind"

    def make(self, out: Path, short_side: int) -> list[str]:
        """Makes the videos where they are missing, and small copies; as options of `a2video fit` and `test`."""
        folder = out / "data" / self.difficulty
        counts = ["--num-train", self.num_train, "--num-val", 0, "--num-test", self.num_test]
        _prepare("motion.py", "--out", folder, "--difficulty", self.difficulty, *counts)
        return small_copies(folder, out / "small" / self.difficulty, short_side)


def small_copies(lists: Path, out: Path, short_side: int) -> list[str]:
    """Copies of videos, as small as a training sees them; as options of `a2video fit` and `test`."""
    options = []
    for name in ("train", "test"):
        _prepare("transcode.py", "--list", lists / f"{name}.csv", "--out", out / name, "--short-side", short_side)
        options += [f"--data.{name}_list", str(out / name / "list.csv")]
    return options


def _prepare(script: str, *options: object) -> None:
    """Runs a script of data_prep/, which leaves alone what is there."""
    subprocess.run([sys.executable, f"data_prep/{script}", *map(str, options)], check=True)
