"""The rows of ablation.py: networks of one family that differ in their blocks alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import ablation_variants
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
    """

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 4
    of_fit: tuple[str, ...] = ()

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
    def folder(self) -> str:
        """Of its runs."""
        parts = [self.builder, *self.places, *([f"r{self.ratio}"] if self.places else []), *self.of_fit]
        return re.sub(r"[^\w.-]+", "_", "-".join(part.removeprefix("--") for part in parts))


CONV4, BOTH, FOUR = ("conv4.1",), ("conv3.1", "conv4.1"), ("conv3.1", "conv3.2", "conv4.1", "conv4.2")
BASE = Network("no block", "resnet26")
TWO = Network("2 double attention, conv3 and conv4, c/4", "a2net_resnet26", BOTH)
NETWORKS = (
    BASE,
    Network("1 non-local, conv4, c/4", "nonlocal_resnet26", CONV4),
    Network("1 double attention, conv4, c/4", "a2net_resnet26", CONV4),
    TWO,
    Network("4 double attention, conv3 and conv4, c/4", "a2net_resnet26", FOUR),
)
QUICK = ("--model.optimizer.lr_factors", '{"*.attention": 10}')
OTHERS = (  # other blocks and places; then what may wake blocks up
    Network("squeeze-excitation, conv4, c/16", "se_resnet26", CONV4, 16),
    Network("1 double attention, conv4, c/2", "a2net_resnet26", CONV4, 2),
    Network("1 double attention, conv3, c/4", "a2net_resnet26", ("conv3.1",)),
    Network("2 double attention, ten times the rate for blocks", "a2net_resnet26", BOTH, of_fit=QUICK),
    Network("2 double attention, their scale begins at 1", "awake", BOTH),
)
