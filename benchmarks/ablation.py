"""Does double attention earn its cost? Networks that differ in their blocks alone, trained alike, compared seed by seed.

    python benchmarks/ablation.py            # `make ablation`: hours on 2 cores; writes results/ablation.md and .png
    python benchmarks/ablation.py --short    # does it run: a minute, writes to --out alone

Every training is one `a2video fit` and one `a2video test`, whose commands lie in the folder of the run; give the same
command again and only what is missing or has changed is trained. Networks of one seed start from the same weights
(blocks are drawn after the rest), see the same videos in the same order, and take the same number of steps.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
RELATIONS = ("same_way", "opposite_ways", "follow")  # classes of the motion data that two objects make


@dataclass(frozen=True)
class Network:
    """A row: a builder of a2video.models, the places of its blocks, and the ratio of channels to inner channels."""

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 0
    on_fights: bool = False

    def options(self, num_classes: int, width: int) -> list[str]:
        """What `a2video fit` takes."""
        given = ["--model.network", f"a2video.models.{self.builder}", "--model.network.num_classes", str(num_classes)]
        given += ["--model.network.width", str(width)]
        if self.places:
            given += ["--model.network.places", json.dumps(self.places), "--model.network.ratio", str(self.ratio)]
        return given

    @property
    def folder(self) -> str:
        """Of its runs."""
        return "-".join([self.builder, *self.places, *([f"r{self.ratio}"] if self.places else [])])


BASE = Network("no block", "resnet26", on_fights=True)
NETWORKS = (
    BASE,
    Network("squeeze-excitation at conv4, c/16", "se_resnet26", ("conv4.1",), 16),
    Network("1 non-local at conv4, c/4", "nonlocal_resnet26", ("conv4.1",), 4, True),
    Network("1 double attention at conv4, c/4", "a2net_resnet26", ("conv4.1",), 4, True),
    Network("1 double attention at conv4, c/2", "a2net_resnet26", ("conv4.1",), 2),
    Network("1 double attention at conv3, c/4", "a2net_resnet26", ("conv3.1",), 4),
    Network("2 double attention at conv3, conv4, c/4", "a2net_resnet26", ("conv3.1", "conv4.1"), 4, True),
    Network(
        "4 double attention at conv3, conv4, c/4",
        "a2net_resnet26",
        ("conv3.1", "conv3.2", "conv4.1", "conv4.2"),
        4,
        True,
    ),
)
