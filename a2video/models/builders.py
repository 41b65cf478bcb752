"""Every network by name: a variant is one line, depths, kernels and places are data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from a2video.models.description import described
from a2video.models.double_attention import DoubleAttention
from a2video.models.nonlocal_block import non_local
from a2video.models.resnet import (
    BottleneckWithOwnShortcutNorm,
    PostActivationBottleneck,
    ResNet2d,
    ResNet3d,
    Size,
    Stage,
    Stem,
)

WIDTHS = (64, 128, 256, 512)
A2_PLACES = ("conv3.1", "conv3.3", "conv4.1", "conv4.3", "conv4.5")  # paper.md section 3
POINT, SPATIAL, TEMPORAL, CUBE = (1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)


Attention = dict[str, Callable[[int], nn.Module]]


def _after(places: Sequence[str], ratio: int, make_block: Callable[[int, int], nn.Module]) -> Attention:
    """make_block(channels, channels // ratio) after each of the places."""
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")

    def after(channels: int) -> nn.Module:
        if ratio > channels:
            raise ValueError(f"ratio {ratio} leaves none of the {channels} channels of a place: take a smaller one")
        return make_block(channels, channels // ratio)

    return dict.fromkeys(places, after)


def _double(places: Sequence[str], ratio: int, dims: int = 3) -> Attention:
    """Double attention with c_m = c_n = channels // ratio after each of the places."""
    return _after(places, ratio, lambda c, inner: DoubleAttention(c, inner, inner, dims))


def _non_local(places: Sequence[str], ratio: int) -> Attention:
    """The non-local block with channels // ratio inner channels after each of the places."""
    return _after(places, ratio, non_local)


def _squeeze_excitation(places: Sequence[str], ratio: int) -> Attention:
    """Squeeze and excitation (Hu et al., CVPR 2018) by channels // ratio inner channels after each of the places."""
    from fvcore.nn.squeeze_excitation import SqueezeExcitation

    return _after(places, ratio, lambda c, inner: SqueezeExcitation(c, inner, is_3d=True))


# ResNet-26 and ResNet-29 of the ablation: 3x3x3 in every block, time halved in conv2, space from conv3 on.
def _small(
    num_classes: int, depths: Sequence[int], width: int, dropout: float, attention: Attention | None = None
) -> ResNet3d:
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    strides: list[Size] = [(2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)]
    stages = [
        Stage(width * times, ((POINT, CUBE),) * depth, stride)
        for times, depth, stride in zip((1, 2, 4, 8), depths, strides, strict=True)
    ]
    return ResNet3d(Stem(16, (3, 5, 5), (1, 2, 2)), stages, num_classes, attention=attention, dropout=dropout)


RESNET26 = (2, 2, 2, 2)
RESNET29 = (2, 2, 3, 2)


# The 3D ResNet-50 of Kinetics: 3x3x3 in conv2, in the odd blocks of conv3 and conv4, in block 2 of conv5.
def _large(depths: Sequence[int], with_time: tuple[Size, Size], without: tuple[Size, Size]) -> list[Stage]:
    strides: list[Size] = [(1, 1, 1), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
    in_time = [
        [True] * depths[0],
        *([number % 2 == 0 for number in range(depth)] for depth in depths[1:3]),
        [number == 1 for number in range(depths[3])],
    ]
    return [
        Stage(width, tuple(with_time if block else without for block in blocks), stride)
        for width, blocks, stride in zip(WIDTHS, in_time, strides, strict=True)
    ]


LARGE_STEM = Stem(32, (3, 5, 5), (1, 2, 2), pool=True)
RESNET50 = _large((3, 4, 6, 3), (POINT, CUBE), (POINT, SPATIAL))
RESNET101 = _large((3, 4, 23, 3), (POINT, CUBE), (POINT, SPATIAL))

# The GloRe authors' skeleton: time in the first convolution of a block, BN after the stem and on shortcuts.
LITE_STEM = Stem(32, (3, 5, 5), (1, 2, 2), norm=True, pool=True)
RESNET50_LITE = _large((3, 4, 6, 3), (TEMPORAL, SPATIAL), (POINT, SPATIAL))

# 2D ResNets as torchvision and timm have them, and the 3D ones that their weights inflate into.
SLOW_STEM = Stem(64, (1, 7, 7), (1, 2, 2), norm=True, pool=True)
V2_STEM = Stem(64, (1, 7, 7), (1, 2, 2), pool=True)
IMAGE_STEM = Stem(64, (7, 7), (2, 2), norm=True, pool=True)


def _slow(depths: Sequence[int]) -> list[Stage]:
    """The slow path of SlowFast: time only in the first convolutions of conv4 and conv5, never strided."""
    return [
        Stage(width, ((first, SPATIAL),) * depth, stride)
        for width, depth, first, stride in zip(
            WIDTHS, depths, (POINT, POINT, TEMPORAL, TEMPORAL), ((1, 1, 1), *((1, 2, 2),) * 3), strict=True
        )
    ]


def _image(depths: Sequence[int]) -> list[Stage]:
    return [
        Stage(width, (((1, 1), (3, 3)),) * depth, stride)
        for width, depth, stride in zip(WIDTHS, depths, ((1, 1), *((2, 2),) * 3), strict=True)
    ]


SLOW_RESNET50 = _slow((3, 4, 6, 3))
IMAGE_RESNET50 = _image((3, 4, 6, 3))
IMAGE_RESNET152 = _image((3, 8, 36, 3))

TINY_STEM = Stem(16, (3, 5, 5), (1, 2, 2))
TINY = [
    Stage(8, ((POINT, CUBE),), (1, 2, 2)),
    Stage(16, ((POINT, CUBE),) * 2, (1, 2, 2)),
    Stage(32, ((POINT, CUBE),) * 2, (2, 1, 1)),
]


@described
def resnet26(num_classes: int, dropout: float = 0.0, width: int = 32) -> ResNet3d:
    """ResNet-26 of the paper's ablation; `width` is that of its first bottlenecks, which the others follow."""
    return _small(num_classes, RESNET26, width, dropout)


@described
def resnet29(num_classes: int, dropout: float = 0.0, width: int = 32) -> ResNet3d:
    """ResNet-29 of the paper's ablation: one more block in conv4."""
    return _small(num_classes, RESNET29, width, dropout)


@described
def resnet50(num_classes: int, dropout: float = 0.0) -> ResNet3d:
    """The paper's 3D ResNet-50."""
    return ResNet3d(LARGE_STEM, RESNET50, num_classes, dropout=dropout)


@described
def resnet101(num_classes: int, dropout: float = 0.0) -> ResNet3d:
    """The 3D ResNet-50's pattern at depth 101; ours, not the paper's."""
    return ResNet3d(LARGE_STEM, RESNET101, num_classes, dropout=dropout)


@described
def a2net_resnet26(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 4, dropout: float = 0.0, width: int = 32
) -> ResNet3d:
    """ResNet-26 with double attention (c_m = c_n = channels / ratio) after each residual block in `places`."""
    return _small(num_classes, RESNET26, width, dropout, _double(places, ratio))


@described
def a2net_resnet29(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 4, dropout: float = 0.0, width: int = 32
) -> ResNet3d:
    """ResNet-29 with double attention (c_m = c_n = channels / ratio) after each residual block in `places`."""
    return _small(num_classes, RESNET29, width, dropout, _double(places, ratio))


@described
def a2net_resnet50(
    num_classes: int, places: Sequence[str] = A2_PLACES, ratio: int = 2, dropout: float = 0.0
) -> ResNet3d:
    """A²-Net for Kinetics and UCF-101: the 3D ResNet-50 with five double attention blocks."""
    return ResNet3d(LARGE_STEM, RESNET50, num_classes, attention=_double(places, ratio), dropout=dropout)


@described
def nonlocal_resnet26(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 2, dropout: float = 0.0, width: int = 32
) -> ResNet3d:
    """ResNet-26 with non-local blocks (channels / ratio inner channels) in the places of double attention."""
    return _small(num_classes, RESNET26, width, dropout, _non_local(places, ratio))


@described
def se_resnet26(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 16, dropout: float = 0.0, width: int = 32
) -> ResNet3d:
    """ResNet-26 with squeeze and excitation (channels / ratio inner channels) in the places of double attention."""
    return _small(num_classes, RESNET26, width, dropout, _squeeze_excitation(places, ratio))


@described
def nonlocal_resnet50(
    num_classes: int, places: Sequence[str] = A2_PLACES, ratio: int = 2, dropout: float = 0.0
) -> ResNet3d:
    """The 3D ResNet-50 with non-local blocks in the places of double attention."""
    return ResNet3d(LARGE_STEM, RESNET50, num_classes, attention=_non_local(places, ratio), dropout=dropout)


@described
def resnet50_lite(num_classes: int, places: Sequence[str] = (), ratio: int = 2, dropout: float = 0.0) -> ResNet3d:
    """The GloRe authors' 3D ResNet-50: takes their "resnet50-lite" weights; double attention in `places`."""
    model = ResNet3d(
        LITE_STEM, RESNET50_LITE, num_classes, BottleneckWithOwnShortcutNorm, _double(places, ratio), dropout
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-4  # theirs
    return model


@described
def slow_resnet50(num_classes: int, places: Sequence[str] = (), ratio: int = 2, dropout: float = 0.0) -> ResNet3d:
    """Post-activation 3D ResNet-50: takes ImageNet weights of torchvision or timm, and Kinetics ones of slow_r50."""
    return ResNet3d(SLOW_STEM, SLOW_RESNET50, num_classes, PostActivationBottleneck, _double(places, ratio), dropout)


@described
def slow_resnet50_v2(num_classes: int, places: Sequence[str] = (), ratio: int = 2, dropout: float = 0.0) -> ResNet3d:
    """Pre-activation sister of slow_resnet50: takes the ImageNet weights of timm's resnetv2_50."""
    return ResNet3d(V2_STEM, SLOW_RESNET50, num_classes, attention=_double(places, ratio), dropout=dropout)


@described
def resnet50_2d(num_classes: int, dropout: float = 0.0) -> ResNet2d:
    """ResNet-50 for images, as torchvision has it."""
    return ResNet2d(IMAGE_STEM, IMAGE_RESNET50, num_classes, PostActivationBottleneck, dropout=dropout)


@described
def resnet152_2d(num_classes: int, dropout: float = 0.0) -> ResNet2d:
    """ResNet-152 for images, as torchvision has it; the paper's comparison."""
    return ResNet2d(IMAGE_STEM, IMAGE_RESNET152, num_classes, PostActivationBottleneck, dropout=dropout)


@described
def a2net_resnet50_2d(
    num_classes: int, places: Sequence[str] = A2_PLACES, ratio: int = 2, dropout: float = 0.0
) -> ResNet2d:
    """A²-Net for ImageNet: ResNet-50 for images with five double attention blocks."""
    return ResNet2d(
        IMAGE_STEM, IMAGE_RESNET50, num_classes, PostActivationBottleneck, _double(places, ratio, dims=2), dropout
    )


@described
def a2net_tiny(
    num_classes: int, places: Sequence[str] = ("conv3.1", "conv4.1"), ratio: int = 2, dropout: float = 0.0
) -> ResNet3d:
    """A small A²-Net for CPUs and tests; ours, not the paper's."""
    return ResNet3d(TINY_STEM, TINY, num_classes, attention=_double(places, ratio), dropout=dropout)
