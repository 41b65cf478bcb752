"""A network whose attention is known by construction, and videos for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from conftest import write_video
from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.inference.backends import TorchBackend
from a2video.inference.classifier import VideoClassifier
from a2video.models import DoubleAttention

CELLS = ((2, 1), (1, 1), (1, 2), (3, 3))  # row and column of the cell that is bright in each frame of a clip
CELL, SIDE = 8, 32  # pixels from one cell's centre to the next one's, the first at 0
STRIDE = 2  # source frames to a clip frame
PREPROCESSING = Preprocessing(len(CELLS), STRIDE, SIDE, SIDE, 1, 1)


class Looker(nn.Module):
    """Descriptor 1 collects from bright places and is received by them; descriptors 0 and 2 have nothing to do.

    Args:
        dims: of the block; with 2 the frames are its samples, with 1 it sees the frames' means.
    """

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        self.block = DoubleAttention(3, 3, 3, dims)
        self.dims = dims
        for layer in (self.block.theta, self.block.rho):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            nn.init.constant_(layer.weight[1], 0.2 if layer is self.block.theta else 1.0)

    def forward(self, clips: Tensor) -> Tensor:
        x = nn.functional.avg_pool3d(clips, (1, CELL + 1, CELL + 1), (1, CELL, CELL), (0, CELL // 2, CELL // 2))
        if self.dims == 2:
            self.block(x[0].transpose(0, 1))
        elif self.dims == 1:
            self.block(x.mean((3, 4)))
        else:
            x = self.block(x)
        return x.mean((2, 3, 4))


def looking(network: nn.Module, preprocessing: Preprocessing = PREPROCESSING) -> VideoClassifier:
    """A classifier with that network, of classes with hostile names."""
    names = ("up", "</style><script>alert(1)</script>", "down")
    return VideoClassifier(TorchBackend(network, preprocessing, "cpu"), names, preprocessing)


def bright_cells(path: Path) -> Path:
    """A video at 10 fps of dark frames in which one cell is white, in the clip frames at CELLS."""
    frames = np.full((2 * STRIDE * len(CELLS) - 1, SIDE, SIDE, 3), 60, np.uint8)  # 15; the centre clip starts at 4
    for number, (row, column) in enumerate(CELLS):
        time = 4 + STRIDE * number
        top, left = CELL * row - CELL // 2, CELL * column - CELL // 2
        frames[time : time + STRIDE, top : top + CELL + 1, left : left + CELL + 1] = 255
    return write_video(path, frames, fps=10)


def randomized(network: nn.Module) -> nn.Module:
    """Blocks that are no identity, in evaluation."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, DoubleAttention):
            nn.init.normal_(module.norm.weight, mean=1)
            nn.init.normal_(module.norm.bias)
            nn.init.normal_(module.theta.weight, std=0.3)
            nn.init.normal_(module.rho.weight, std=0.3)
    return network.eval()
