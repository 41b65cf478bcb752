"""Bottleneck residual networks for clips and images, pre- or post-activation, with blocks at named places."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from a2video.models.dims import BATCH_NORMS, CONVOLUTIONS, MAX_POOLS
from a2video.models.insert import insert_blocks

Size = tuple[int, ...]  # (T, H, W) or (H, W)
EXPANSION = 4  # a bottleneck block puts out 4 times its width


@dataclass(frozen=True)
class Stem:
    """The first convolution, whether BN-ReLU follow it, and whether a max-pool 3x3 of stride 2 in H and W ends it."""

    channels: int
    kernel: Size
    stride: Size
    norm: bool = False
    pool: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage: its bottleneck width, the kernels (first, middle) of each block, the stride of the first block."""

    width: int
    kernels: tuple[tuple[Size, Size], ...]
    stride: Size


def convolution(in_channels: int, out_channels: int, kernel: Size, stride: Size) -> nn.Module:
    """A convolution without bias, padded so that stride 1 keeps the size; as many dimensions as the kernel has."""
    padding = tuple(k // 2 for k in kernel)
    return CONVOLUTIONS[len(kernel)](in_channels, out_channels, kernel, stride, padding, bias=False)  # type: ignore[arg-type]


def _relu(x: Tensor, in_place: bool) -> Tensor:
    return torch.relu_(x) if in_place else torch.relu(x)


def _sum(x: Tensor, y: Tensor, in_place: bool) -> Tensor:
    return x.add_(y) if in_place else x + y


class Bottleneck(nn.Module):
    """Pre-activation bottleneck block: BN-ReLU-conv, three times with kernels first, middle and 1, plus shortcut.

    The stride sits on the middle convolution. Where the shape changes, the shortcut is a 1x1x1 convolution of the
    first BN-ReLU's output; with `shortcut_norm` of a BN-ReLU of its own.
    """

    final_norm: ClassVar[bool] = True  # the network must end in a BN-ReLU of its own
    in_place = False  # what hooks keep, and layers of others, must not be written to; see prepare_for_inference

    def __init__(
        self, in_channels: int, width: int, kernels: tuple[Size, Size], stride: Size, shortcut_norm: bool = False
    ) -> None:
        super().__init__()
        first, middle = kernels
        one = (1,) * len(middle)
        batch_norm = BATCH_NORMS[len(middle)]
        self.bn1 = batch_norm(in_channels)
        self.conv1 = convolution(in_channels, width, first, one)
        self.bn2 = batch_norm(width)
        self.conv2 = convolution(width, width, middle, stride)
        self.bn3 = batch_norm(width)
        self.conv3 = convolution(width, EXPANSION * width, one, one)
        self.shortcut: nn.Module | None = None
        self.shortcut_bn: nn.Module | None = None
        if in_channels != EXPANSION * width or prod(stride) > 1:
            self.shortcut_bn = batch_norm(in_channels) if shortcut_norm else None
            self.shortcut = convolution(in_channels, EXPANSION * width, one, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, 4 * width, *size / stride)."""
        activated = _relu(self.bn1(x), self.in_place)
        y = self.conv1(activated)
        y = self.conv2(_relu(self.bn2(y), self.in_place))
        y = self.conv3(_relu(self.bn3(y), self.in_place))
        if self.shortcut_bn is not None:
            activated = _relu(self.shortcut_bn(x), self.in_place)
        return _sum(y, x if self.shortcut is None else self.shortcut(activated), self.in_place)


class BottleneckWithOwnShortcutNorm(Bottleneck):
    """The GloRe authors' block: a projection shortcut has a BN-ReLU of its own."""

    def __init__(self, in_channels: int, width: int, kernels: tuple[Size, Size], stride: Size) -> None:
        super().__init__(in_channels, width, kernels, stride, shortcut_norm=True)


class PostActivationBottleneck(nn.Module):
    """Post-activation bottleneck block (conv-BN-ReLU): the one of torchvision's ResNets, with stride in the middle."""

    final_norm: ClassVar[bool] = False
    in_place = False

    def __init__(self, in_channels: int, width: int, kernels: tuple[Size, Size], stride: Size) -> None:
        super().__init__()
        first, middle = kernels
        one = (1,) * len(middle)
        batch_norm = BATCH_NORMS[len(middle)]
        self.conv1 = convolution(in_channels, width, first, one)
        self.bn1 = batch_norm(width)
        self.conv2 = convolution(width, width, middle, stride)
        self.bn2 = batch_norm(width)
        self.conv3 = convolution(width, EXPANSION * width, one, one)
        self.bn3 = batch_norm(EXPANSION * width)
        self.shortcut: nn.Module | None = None
        self.shortcut_bn: nn.Module | None = None
        if in_channels != EXPANSION * width or prod(stride) > 1:
            self.shortcut = convolution(in_channels, EXPANSION * width, one, stride)
            self.shortcut_bn = batch_norm(EXPANSION * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, 4 * width, *size / stride)."""
        y = _relu(self.bn1(self.conv1(x)), self.in_place)
        y = _relu(self.bn2(self.conv2(y)), self.in_place)
        y = self.bn3(self.conv3(y))
        if self.shortcut is not None and self.shortcut_bn is not None:
            x = self.shortcut_bn(self.shortcut(x))
        return _relu(_sum(y, x, self.in_place), self.in_place)


Block = type[Bottleneck] | type[PostActivationBottleneck]


class ResNet(nn.Module):
    """Residual network: stem, stages `conv2`, `conv3`, ..., global average pool, dropout, linear.

    Residual blocks are named as in the paper, from one: `conv3.1` is the first block of `conv3`. A block put in
    after it is its child `conv3.1.attention`, so all other weights have the same names with and without it.

    Args:
        stem: the first convolution.
        stages: the residual stages, first to last.
        num_classes: length of the logits.
        block: the kind of residual block.
        attention: residual block name -> function that takes its number of channels and returns the module to put
            right after it, e.g. `{"conv4.1": DoubleAttention}`; see insert_blocks.
        dropout: probability of zeroing a pooled feature in training, in [0, 1].

    Raises:
        ValueError: `attention` names a place that does not exist, or `num_classes` is not positive.
    """

    dims: ClassVar[int]
    size_names: ClassVar[str]
    in_place = False

    def __init__(
        self,
        stem: Stem,
        stages: Sequence[Stage],
        num_classes: int,
        block: Block = Bottleneck,
        attention: Mapping[str, Callable[[int], nn.Module]] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        one, spatial = (1,) * self.dims, (1,) * (self.dims - 2) + (2, 2)
        channels, strides = stem.channels, [stem.stride]
        self.conv1 = convolution(3, channels, stem.kernel, stem.stride)
        self.bn1 = BATCH_NORMS[self.dims](channels) if stem.norm else None
        self.pool: nn.Module | None = None
        if stem.pool:
            around = (0,) * (self.dims - 2) + (1, 1)
            self.pool = MAX_POOLS[self.dims](tuple(2 * p + 1 for p in around), spatial, around)
            strides.append(spatial)
        self.stage_names = [f"conv{number}" for number in range(2, len(stages) + 2)]
        for name, stage in zip(self.stage_names, stages, strict=True):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for number, kernels in enumerate(stage.kernels, 1):
                blocks[str(number)] = block(channels, stage.width, kernels, stage.stride if number == 1 else one)
                channels = EXPANSION * stage.width
            self.add_module(name, nn.Sequential(blocks))
            strides.append(stage.stride)
        self.bn = BATCH_NORMS[self.dims](channels) if block.final_norm else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._initialize()
        self.num_classes = num_classes
        self.min_size = tuple(prod(s) for s in zip(*strides, strict=True))  # leaves one position at the end
        self._check_places(attention or {})
        insert_blocks(self, attention or {})

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, CONVOLUTIONS[self.dims]):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def _check_places(self, attention: Mapping[str, object]) -> None:
        places = [
            f"{stage}.{name}" for stage in self.stage_names for name, _ in self.get_submodule(stage).named_children()
        ]
        for place in attention:
            if place not in places:
                raise ValueError(f"no residual block is named {place!r}; this network has {', '.join(places)}")

    def features(self, x: Tensor) -> Tensor:
        """Feature maps (B, channels, *size) before pooling; x and errors as in forward."""
        if x.ndim != self.dims + 2 or x.shape[1] != 3:
            raise ValueError(f"expected input of shape (B, 3, {self.size_names}), got {tuple(x.shape)}")
        if any(size < least for size, least in zip(x.shape[2:], self.min_size, strict=True)):
            raise ValueError(f"input must be at least {self.min_size} in ({self.size_names}), got {tuple(x.shape[2:])}")
        x = self.conv1(x)
        if self.bn1 is not None:
            x = _relu(self.bn1(x), self.in_place)
        if self.pool is not None:
            x = self.pool(x)
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        return x if self.bn is None else _relu(self.bn(x), self.in_place)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips or images.

        Args:
            x: (B, 3, T, H, W) or (B, 3, H, W) floating point, normalised RGB, each size at least that in `min_size`.

        Returns:
            Raw logits (B, num_classes), in training and evaluation alike.

        Raises:
            ValueError: x has another shape, or is too small.
        """
        pooled = self.features(x).flatten(2).mean(2)  # (B, channels)
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits


class ResNet3d(ResNet):
    """A ResNet for clips (B, 3, T, H, W); sizes, kernels and strides are (T, H, W)."""

    dims = 3
    size_names = "T, H, W"


class ResNet2d(ResNet):
    """A ResNet for images (B, 3, H, W), or clips of one frame (B, 3, 1, H, W); sizes are (H, W)."""

    dims = 2
    size_names = "H, W"

    def features(self, x: Tensor) -> Tensor:
        """See ResNet.features."""
        return super().features(x.squeeze(2) if x.ndim == 5 and x.shape[2] == 1 else x)
