"""The rows of ablation.py: networks that differ in their blocks alone, and what they are compared in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import ablation_variants
from ablation_data import MOTIONS, WAYS
from torch import nn

from a2video import models


@dataclass(frozen=True)
class Network:
    """A row.

    Attributes:
        name: in the tables.
        builder: of a2video.models, or with its module.
        places: of its blocks.
        ratio: of channels to inner channels.
        of_fit: options of its training.
        first: the builder of the network without blocks whose trained weights it starts from.
        again: whether it is trained on, and tested with, the same data as that one.
    """

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 4
    of_fit: tuple[str, ...] = ()
    first: str = "resnet26"
    again: bool = False

    def arguments(self, num_classes: int, width: int) -> dict[str, object]:
        """Of the builder."""
        given: dict[str, object] = {"num_classes": num_classes, "width": width}
        return given | ({"places": list(self.places), "ratio": self.ratio} if self.places else {})

    def options(self, num_classes: int, width: int) -> list[str]:
        """The same for `a2video fit` and `test`."""
        module = "a2video.models" if self.builder in models.BUILDERS else "ablation_variants"
        given = ["--model.network", f"{module}.{self.builder}"]
        for name, value in self.arguments(num_classes, width).items():
            given += [f"--model.network.{name}", json.dumps(value)]
        return given

    def build(self, num_classes: int, width: int) -> nn.Module:
        """With random weights."""
        builder = models.BUILDERS.get(self.builder) or getattr(ablation_variants, self.builder)
        return builder(**self.arguments(num_classes, width))

    @property
    def start(self) -> Network:
        """The network without blocks that it starts from."""
        return Network(f"`{self.first}`", self.first)

    @property
    def folder(self) -> str:
        """Of its runs."""
        parts = [self.builder, *self.places, *([f"r{self.ratio}"] if self.places else []), *self.of_fit]
        return re.sub(r"[^\w.-]+", "_", "-".join(part.removeprefix("--") for part in parts))


@dataclass(frozen=True)
class Comparison:
    """Some rows.

    Attributes:
        title: what is asked.
        networks: the rows, on the same data; the first is what the others are compared to.
        num_seeds: of each row.
        groups: of classes.
        drawn: the group that has a picture, beside all classes; none if empty.
        bases: rows that the others are compared to, besides the first.
        note: what a reader must know of it.
    """

    title: str
    networks: tuple[Network, ...]
    num_seeds: int
    groups: Mapping[str, Sequence[str]] = field(default_factory=lambda: MOTIONS, hash=False)
    drawn: str = ""
    bases: tuple[Network, ...] = ()
    note: str = ""

    def picture(self, prefix: Path) -> Path:
        """Its file, beside those with the same beginning."""
        return prefix.with_name(f"{prefix.name}_{self.drawn.replace(' ', '_')}.png")


CONV4, BOTH, FOUR = ("conv4.1",), ("conv3.1", "conv4.1"), ("conv3.1", "conv3.2", "conv4.1", "conv4.2")
QUICK = ("--model.optimizer.lr_factors", '{"*.attention": 10}')
LONG = ("--trainer.max_epochs", "12")

BASE = Network("no block", "resnet26")
NON_LOCAL = Network("1 non-local, conv4, c/4", "nonlocal_resnet26", CONV4)
TWO = Network("2 double attention, conv3 and conv4, c/4", "a2net_resnet26", BOTH)
LOCAL = Network("local, no block", "local", of_fit=LONG, first="local", again=True)
LOCAL_TWO = Network(
    "local, 2 double attention, conv3 and conv4", "local_double_attention", BOTH, 4, (*LONG, *QUICK), "local", True
)
LOCAL_ONE = replace(LOCAL_TWO, name="local, 1 double attention, conv4", places=CONV4)
LOCAL_NON_LOCAL = replace(LOCAL_ONE, name="local, 1 non-local, conv4", builder="local_non_local")
LOCAL_POOLED = replace(
    LOCAL_TWO,
    name="local, 2 squeeze-excitation, conv3 and conv4, c/16",
    builder="local_squeeze_excitation",
    ratio=16,
)

MAIN = Comparison(
    "Blocks or none",
    (
        BASE,
        NON_LOCAL,
        Network("1 double attention, conv4, c/4", "a2net_resnet26", CONV4),
        TWO,
        Network("4 double attention, conv3 and conv4, c/4", "a2net_resnet26", FOUR),
    ),
    5,
    drawn="two objects",
    bases=(NON_LOCAL,),
)
LOCALS = Comparison(
    "Networks that see 13 x 13 of 40 x 40 pixels at a position; ten times the rate for blocks",
    (LOCAL, LOCAL_POOLED, LOCAL_NON_LOCAL, LOCAL_ONE, LOCAL_TWO),
    5,
    groups=MOTIONS | WAYS,
    drawn="same or opposite",
    bases=(LOCAL_NON_LOCAL,),
    note="What these are trained on, and for how long, was chosen after shorter trials with seed 0. Seeds 3 and 4 were "
    "added when the first three could not tell non-local from double attention; then only two double attention blocks "
    "had an interval without zero, so that those of one block are somewhat too narrow.",
)
COMPARISONS = (
    MAIN,
    Comparison(
        "Other blocks and places",
        (
            BASE,
            TWO,
            Network("squeeze-excitation, conv4, c/16", "se_resnet26", CONV4, 16),
            Network("1 double attention, conv4, c/2", "a2net_resnet26", CONV4, 2),
            Network("1 double attention, conv3, c/4", "a2net_resnet26", ("conv3.1",)),
        ),
        3,
    ),
    Comparison(
        "Blocks that wake up sooner, and other norms; c/4 at conv3 and conv4",
        (
            BASE,
            Network("2 double attention, ten times the rate for blocks", "a2net_resnet26", BOTH, of_fit=QUICK),
            Network("2 double attention, scale 1 from the start", "awake", BOTH),
            Network("2 double attention, the same with group norm", "group_norm", BOTH),
            Network("2 double attention, the same without softmax", "products", BOTH),
        ),
        3,
    ),
    LOCALS,
)
