"""Networks and blocks; needs torch only, pytorchvideo for the non-local block, fvcore for squeeze and excitation."""

from collections.abc import Callable

from torch import nn

from a2video.models.builders import (
    a2net_resnet26,
    a2net_resnet29,
    a2net_resnet50,
    a2net_resnet50_2d,
    a2net_tiny,
    nonlocal_resnet26,
    nonlocal_resnet50,
    resnet26,
    resnet29,
    resnet50,
    resnet50_2d,
    resnet50_lite,
    resnet101,
    resnet152_2d,
    se_resnet26,
    slow_resnet50,
    slow_resnet50_v2,
)
from a2video.models.catalog import CATALOG
from a2video.models.double_attention import DoubleAttention, double_attention
from a2video.models.inflate import LoadReport, load_pretrained
from a2video.models.insert import insert_blocks
from a2video.models.nonlocal_block import non_local
from a2video.models.resnet import ResNet, ResNet2d, ResNet3d, Stage, Stem

# Every builder takes num_classes first; a checkpoint may name only these.
BUILDERS: dict[str, Callable[..., nn.Module]] = {entry.name: entry.builder for entry in CATALOG}

__all__ = [
    "BUILDERS",
    "CATALOG",
    "DoubleAttention",
    "LoadReport",
    "ResNet",
    "ResNet2d",
    "ResNet3d",
    "Stage",
    "Stem",
    "a2net_resnet26",
    "a2net_resnet29",
    "a2net_resnet50",
    "a2net_resnet50_2d",
    "a2net_tiny",
    "double_attention",
    "insert_blocks",
    "load_pretrained",
    "non_local",
    "nonlocal_resnet26",
    "nonlocal_resnet50",
    "resnet26",
    "resnet29",
    "resnet50",
    "resnet50_2d",
    "resnet50_lite",
    "resnet101",
    "resnet152_2d",
    "se_resnet26",
    "slow_resnet50",
    "slow_resnet50_v2",
]
