"""Networks and blocks; needs torch only."""

from collections.abc import Callable

from torch import nn

from a2video.models.double_attention import DoubleAttention
from a2video.models.resnet import (
    ResNet3d,
    Stage,
    Stem,
    a2net_resnet26,
    a2net_resnet29,
    a2net_resnet50,
    a2net_tiny,
    resnet26,
    resnet29,
    resnet50,
)

# Every builder takes num_classes first; a checkpoint may name only these.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (resnet26, resnet29, resnet50, a2net_resnet26, a2net_resnet29, a2net_resnet50, a2net_tiny)
}

__all__ = ["BUILDERS", "DoubleAttention", "ResNet3d", "Stage", "Stem", *BUILDERS]
