"""A 3D convolution that torch computes quickly on a CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Conv3d(nn.Conv3d):
    """torch's 3D convolution, by another way where its own is slow: in float32 on a CPU.

    Small inputs of one clip go through the matrices of every kernel's inputs there (slow_conv3d): oneDNN takes half the
    time. Kernels of 1x1x1 in the layout channels_last_3d are one matrix product, without copies.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, out_channels, ...)."""
        is_point = self.kernel_size == (1, 1, 1) and self.padding == (0, 0, 0) and self.groups == 1
        if (
            input.device.type != "cpu"
            or input.dtype != torch.float32
            or self.weight.dtype != torch.float32
            or input.ndim != 5
            or not input.numel()
            or self.padding_mode != "zeros"
            or isinstance(self.padding, str)
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        ):
            return super().forward(input)
        if is_point and input.is_contiguous(memory_format=torch.channels_last_3d):
            if self.stride != (1, 1, 1):  # (a slice of everything costs a copy in the backward pass)
                t, h, w = self.stride
                input = input[:, :, ::t, ::h, ::w]
            positions = input.permute(0, 2, 3, 4, 1)  # (B, T, H, W, in_channels)
            return linear(positions, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)
        if is_point or not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # type: ignore[no-untyped-call]
            return super().forward(input)
        return torch.ops.aten.mkldnn_convolution(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
