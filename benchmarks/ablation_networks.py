"""The rows of ablation.py: networks of one family that differ in their blocks alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

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
        is_main: it has all seeds, and is tried on real clips too; the others have the first three seeds.
        of_fit: options of its training.
    """

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 4
    is_main: bool = False
    of_fit: tuple[str, ...] = ()

    def arguments(self, num_classes: int, width: int) -> dict[str, object]:
        """Of the builder."""
        given: dict[str, object] = {"num_classes": num_classes, "width": width}
        return given | ({"places": list(self.places), "ratio": self.ratio} if self.places else {})

    def options(self, num_classes: int, width: int) -> list[str]:
        """The same for `a2video fit` and `test`."""
        module = "" if "." in self.builder else "a2video.models."
        given = ["--model.network", module + self.builder]
        for name, value in self.arguments(num_classes, width).items():
            given += [f"--model.network.{name}", json.dumps(value)]
        return given

    def build(self, num_classes: int, width: int) -> nn.Module:
        """With random weights."""
        return models.BUILDERS[self.builder](**self.arguments(num_classes, width))

    @property
    def folder(self) -> str:
        """Of its runs."""
        parts = [self.builder, *self.places, *([f"r{self.ratio}"] if self.places else []), *self.of_fit]
        return re.sub(r"[^\w.-]+", "_", "-".join(part.removeprefix("--") for part in parts))


CONV4, BOTH, FOUR = ("conv4.1",), ("conv3.1", "conv4.1"), ("conv3.1", "conv3.2", "conv4.1", "conv4.2")
BASE = Network("no block", "resnet26", is_main=True)
TWO = Network("2 double attention, conv3 and conv4, c/4", "a2net_resnet26", BOTH, is_main=True)
NETWORKS = (
    BASE,
    Network("squeeze-excitation, conv4, c/16", "se_resnet26", CONV4, 16),
    Network("1 non-local, conv4, c/4", "nonlocal_resnet26", CONV4, is_main=True),
    Network("1 double attention, conv4, c/4", "a2net_resnet26", CONV4, is_main=True),
    Network("1 double attention, conv4, c/2", "a2net_resnet26", CONV4, 2),
    Network("1 double attention, conv3, c/4", "a2net_resnet26", ("conv3.1",)),
    TWO,
    Network("4 double attention, conv3 and conv4, c/4", "a2net_resnet26", FOUR, is_main=True),
)
LONGER = ("--trainer.max_epochs", "12")
QUICK = ("--model.optimizer.lr_factors", '{"*.attention": 10}')
WHY = (  # beside BASE and TWO
    Network("no block, three times as long", "resnet26", of_fit=LONGER),
    Network("2 double attention, three times as long", "a2net_resnet26", BOTH, of_fit=LONGER),
    Network("2 double attention, ten times the rate for blocks", "a2net_resnet26", BOTH, of_fit=QUICK),
    Network("2 double attention, their scale begins at 1", "ablation_variants.awake", BOTH),
)
