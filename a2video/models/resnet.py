"""Pre-activation bottleneck ResNets for clips, with attention blocks at named places, and the paper's variants."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from a2video.models.description import described
from a2video.models.double_attention import DoubleAttention

Size = tuple[int, int, int]
EXPANSION = 4  # a bottleneck block puts out 4 times its width


@dataclass(frozen=True)
class Stem:
    """The first convolution, without bias, and whether a 1x3x3 max-pool of stride 1,2,2 follows it."""

    channels: int
    kernel: Size
    stride: Size
    pool: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage: its bottleneck width, one middle kernel a block, the stride of the first block."""

    width: int
    kernels: tuple[Size, ...]
    stride: Size


class Bottleneck(nn.Module):
    """Pre-activation bottleneck block: BN-ReLU-conv 1x1x1, BN-ReLU-conv `kernel`, BN-ReLU-conv 1x1x1, plus shortcut.

    The stride sits on the middle convolution. Where the shape changes, the shortcut is a 1x1x1 convolution of the
    first BN-ReLU's output, with no normalisation of its own.
    """

    def __init__(self, in_channels: int, width: int, kernel: Size, stride: Size) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.bn1 = nn.BatchNorm3d(in_channels)
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, kernel, stride, padding, bias=False)
        self.bn3 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_channels, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels or prod(stride) > 1:
            self.shortcut = nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, 4 * width, T', H', W')."""
        activated = torch.relu(self.bn1(x))
        y = self.conv1(activated)
        y = self.conv2(torch.relu(self.bn2(y)))
        y = self.conv3(torch.relu(self.bn3(y)))
        residual: Tensor = y + (x if self.shortcut is None else self.shortcut(activated))
        return residual


class ResNet3d(nn.Module):
    """3D residual network: stem, stages `conv2`, `conv3`, ..., BN-ReLU, global average pool, dropout, linear.

    Residual blocks are named as in the paper, from one: `conv3.1` is the first block of `conv3`. A block put in
    after `conv3.1` becomes the submodule `conv3.1_attention`, so the names of all other weights stay the same with
    and without attention.

    Args:
        stem: the first convolution.
        stages: the residual stages, first to last.
        num_classes: length of the logits.
        attention: residual block name -> function that takes its number of channels and returns the module to put
            right after it, e.g. `{"conv4.1": DoubleAttention}`.
        dropout: probability of zeroing a pooled feature in training, in [0, 1].

    Raises:
        ValueError: `attention` names a place that does not exist, or `num_classes` is not positive.
    """

    def __init__(
        self,
        stem: Stem,
        stages: Sequence[Stage],
        num_classes: int,
        attention: Mapping[str, Callable[[int], nn.Module]] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        attention = {} if attention is None else attention
        places = [f"conv{s}.{b}" for s, stage in enumerate(stages, 2) for b in range(1, len(stage.kernels) + 1)]
        for place in attention:
            if place not in places:
                raise ValueError(f"no residual block is named {place!r}; this network has {', '.join(places)}")

        padding = (stem.kernel[0] // 2, stem.kernel[1] // 2, stem.kernel[2] // 2)
        self.conv1 = nn.Conv3d(3, stem.channels, stem.kernel, stem.stride, padding, bias=False)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if stem.pool else nn.Identity()
        strides = [stem.stride, (1, 2, 2) if stem.pool else (1, 1, 1)]
        channels = stem.channels
        self.stage_names = [f"conv{number}" for number in range(2, len(stages) + 2)]
        for name, stage in zip(self.stage_names, stages, strict=True):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for number, kernel in enumerate(stage.kernels, 1):
                stride = stage.stride if number == 1 else (1, 1, 1)
                blocks[f"{number}"] = Bottleneck(channels, stage.width, kernel, stride)
                channels = EXPANSION * stage.width
                strides.append(stride)
            self.add_module(name, nn.Sequential(blocks))
        self.bn = nn.BatchNorm3d(channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._initialize()
        for place, make_block in attention.items():
            self._insert_after(place, make_block)

        self.num_classes = num_classes
        self.min_size = [prod(s) for s in zip(*strides, strict=True)]  # (T, H, W) that leaves one position at the end

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def _insert_after(self, place: str, make_block: Callable[[int], nn.Module]) -> None:
        stage_name, number = place.split(".")
        stage = self.get_submodule(stage_name)
        block = stage.get_submodule(number)
        assert isinstance(stage, nn.Sequential)
        assert isinstance(block, Bottleneck)
        modules = OrderedDict(stage.named_children())
        attended: OrderedDict[str, nn.Module] = OrderedDict()
        for name, module in modules.items():
            attended[name] = module
            if name == number:
                attended[f"{number}_attention"] = make_block(block.conv3.out_channels)
        self.add_module(stage_name, nn.Sequential(attended))

    def forward(self, x: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            x: (B, 3, T, H, W) floating point, normalised RGB; T, H, W at least `min_size`.

        Returns:
            Raw logits (B, num_classes), in training and evaluation alike.

        Raises:
            ValueError: x has another shape, or is too small.
        """
        if x.ndim != 5 or x.shape[1] != 3:
            raise ValueError(f"expected clips of shape (B, 3, T, H, W), got {tuple(x.shape)}")
        if any(size < least for size, least in zip(x.shape[2:], self.min_size, strict=True)):
            raise ValueError(f"clips must be at least {self.min_size} in (T, H, W), got {tuple(x.shape[2:])}")
        x = self.pool(self.conv1(x))
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        x = torch.relu(self.bn(x)).mean(dim=(2, 3, 4))  # (B, channels)
        logits: Tensor = self.fc(self.dropout(x))
        return logits


def _kernels(num_blocks: int, spatiotemporal: Sequence[int]) -> tuple[Size, ...]:
    """3x3x3 in the blocks (from one) that `spatiotemporal` lists, 1x3x3 in the others."""
    return tuple((3, 3, 3) if number in spatiotemporal else (1, 3, 3) for number in range(1, num_blocks + 1))


def _small_stages(depths: Sequence[int]) -> list[Stage]:
    """The stages of ResNet-26 and ResNet-29: 3x3x3 everywhere, time halved in conv2, space from conv3 on."""
    strides: list[Size] = [(2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)]
    return [
        Stage(width, ((3, 3, 3),) * depth, stride)
        for width, depth, stride in zip((32, 64, 128, 256), depths, strides, strict=True)
    ]


SMALL_STEM = Stem(16, (3, 5, 5), (1, 2, 2))
RESNET26_STAGES = _small_stages((2, 2, 2, 2))
RESNET29_STAGES = _small_stages((2, 2, 3, 2))
RESNET50_STEM = Stem(32, (3, 5, 5), (1, 2, 2), pool=True)
RESNET50_STAGES = [
    Stage(64, _kernels(3, (1, 2, 3)), (1, 1, 1)),
    Stage(128, _kernels(4, (1, 3)), (2, 2, 2)),
    Stage(256, _kernels(6, (1, 3, 5)), (1, 2, 2)),
    Stage(512, _kernels(3, (2,)), (1, 2, 2)),
]
TINY_STEM = Stem(16, (3, 5, 5), (1, 2, 2))
TINY_STAGES = [
    Stage(8, ((3, 3, 3),), (1, 2, 2)),
    Stage(16, ((3, 3, 3),) * 2, (1, 2, 2)),
    Stage(32, ((3, 3, 3),) * 2, (2, 1, 1)),
]


def _double_attention(places: Sequence[str], ratio: int) -> dict[str, Callable[[int], nn.Module]]:
    """Double attention with c_m = c_n = channels // ratio after each of the places."""
    return dict.fromkeys(places, lambda channels: DoubleAttention(channels, channels // ratio, channels // ratio))


@described
def resnet26(num_classes: int, dropout: float = 0.0) -> ResNet3d:
    """ResNet-26 of the paper's ablation, made for clips of 16 x 112 x 112."""
    return ResNet3d(SMALL_STEM, RESNET26_STAGES, num_classes, dropout=dropout)


@described
def resnet29(num_classes: int, dropout: float = 0.0) -> ResNet3d:
    """ResNet-29 of the paper's ablation (one more block in conv4), made for clips of 16 x 112 x 112."""
    return ResNet3d(SMALL_STEM, RESNET29_STAGES, num_classes, dropout=dropout)


@described
def resnet50(num_classes: int, dropout: float = 0.0) -> ResNet3d:
    """The paper's 3D ResNet-50, made for clips of 8 x 224 x 224."""
    return ResNet3d(RESNET50_STEM, RESNET50_STAGES, num_classes, dropout=dropout)


@described
def a2net_resnet26(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 4, dropout: float = 0.0
) -> ResNet3d:
    """ResNet-26 with double attention (c_m = c_n = channels / ratio) after each residual block in `places`."""
    return ResNet3d(SMALL_STEM, RESNET26_STAGES, num_classes, _double_attention(places, ratio), dropout)


@described
def a2net_resnet29(
    num_classes: int, places: Sequence[str] = ("conv4.1",), ratio: int = 4, dropout: float = 0.0
) -> ResNet3d:
    """ResNet-29 with double attention (c_m = c_n = channels / ratio) after each residual block in `places`."""
    return ResNet3d(SMALL_STEM, RESNET29_STAGES, num_classes, _double_attention(places, ratio), dropout)


@described
def a2net_resnet50(
    num_classes: int,
    places: Sequence[str] = ("conv3.1", "conv3.3", "conv4.1", "conv4.3", "conv4.5"),
    ratio: int = 2,
    dropout: float = 0.0,
) -> ResNet3d:
    """A²-Net for Kinetics and UCF-101: the 3D ResNet-50 with five double attention blocks, c_m = c_n = channels / 2."""
    return ResNet3d(RESNET50_STEM, RESNET50_STAGES, num_classes, _double_attention(places, ratio), dropout)


@described
def a2net_tiny(
    num_classes: int, places: Sequence[str] = ("conv3.1", "conv4.1"), ratio: int = 2, dropout: float = 0.0
) -> ResNet3d:
    """A small A²-Net for CPUs and tests, made for clips of 8 x 64 x 64; ours, not the paper's."""
    return ResNet3d(TINY_STEM, TINY_STAGES, num_classes, _double_attention(places, ratio), dropout)
