"""Networks of ablation.py that a2video does not have, for it is no better with them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from a2video.models import DoubleAttention, a2net_resnet26


def awake(num_classes: int, places: Sequence[str], ratio: int, width: int) -> nn.Module:
    """a2net_resnet26 whose blocks take part from the start: the scale of their norm begins at 1, not at 0."""
    network = a2net_resnet26(num_classes, places, ratio, width=width)
    for module in network.modules():
        if isinstance(module, DoubleAttention):
            nn.init.ones_(module.norm.weight)
    return network
