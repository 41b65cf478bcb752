"""The A²-Net as its authors' code of the time would have it, written anew: where other benchmarks start from.

Batch norm, ReLU in place and convolution in one unit, and the block step by step as the paper writes it. It takes the
weights of a2video.models.a2net_resnet50, so that both can be seen to be the same function.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

STAGES = [  # name, width, stride, kernels of the middle convolutions in time, blocks with double attention
    ("conv2", 64, (1, 1, 1), (3, 3, 3), ()),
    ("conv3", 128, (2, 2, 2), (3, 1, 3, 1), (1, 3)),
    ("conv4", 256, (1, 2, 2), (3, 1, 3, 1, 3, 1), (1, 3, 5)),
    ("conv5", 512, (1, 2, 2), (1, 3, 1), ()),
]


class Textbook(nn.Module):
    """Double attention: gather, distribute, and all tensors in between."""

    def __init__(self, channels: int, inner: int | None = None) -> None:
        super().__init__()
        inner = channels // 2 if inner is None else inner
        self.phi = nn.Conv3d(channels, inner, 1)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.rho = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, T, H, W) -> the same."""
        batch, _, *size = x.shape
        features = self.phi(x).view(batch, -1, size[0] * size[1] * size[2])
        gather = torch.softmax(self.theta(x).view(*features.shape), dim=2)
        distribute = torch.softmax(self.rho(x).view(*features.shape), dim=1)
        descriptors = torch.bmm(features, gather.permute(0, 2, 1))
        attended = torch.bmm(descriptors, distribute).view(batch, -1, *size)
        return x + self.norm(self.out(attended))


class Residual(nn.Module):
    """Bottleneck of three BN-ReLU-convolutions."""

    def __init__(self, channels: int, width: int, time_kernel: int, stride: tuple[int, ...], new: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (time_kernel, 3, 3), stride, (time_kernel // 2, 1, 1), bias=False)
        self.bn3 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        if new:
            self.shortcut = nn.Conv3d(channels, 4 * width, 1, stride, bias=False)
        self.attention = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, 4 * width, ...)."""
        first = self.relu(self.bn1(x))
        y = self.conv1(first)
        y = self.conv2(self.relu(self.bn2(y)))
        y = self.conv3(self.relu(self.bn3(y)))
        y = y + (self.shortcut(first) if hasattr(self, "shortcut") else x)
        return self.attention(y)


class PlainA2Net(nn.Module):
    """ResNet-50 for clips with five double attention blocks."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 32, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        channels = 32
        for name, width, stride, time_kernels, places in STAGES:
            blocks = OrderedDict()
            for number, time_kernel in enumerate(time_kernels, 1):
                here = stride if number == 1 else (1, 1, 1)
                block = blocks[str(number)] = Residual(channels, width, time_kernel, here, number == 1)
                channels = 4 * width
                if number in places:
                    block.attention = Textbook(channels)
            self.add_module(name, nn.Sequential(blocks))
        self.bn = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.mean = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> logits (B, num_classes)."""
        x = self.pool(self.conv1(x))
        for name, *_ in STAGES:
            x = self.get_submodule(name)(x)
        return self.fc(self.mean(self.relu(self.bn(x))).flatten(1))
