"""The non-local block (Wang et al., CVPR 2018) in the place of double attention, for comparison."""

from __future__ import annotations

from torch import nn


def non_local(channels: int, inner: int | None = None) -> nn.Module:
    """pytorchvideo's embedded-Gaussian non-local block for clips, the identity at first.

    Takes and gives (B, c, T, H, W), like DoubleAttention; its cost and memory grow with the square of T*H*W.

    Args:
        channels: c, the channels of input and output.
        inner: channels of queries, keys and values; channels // 2 when None.
    """
    from pytorchvideo.layers.nonlocal_net import create_nonlocal

    block: nn.Module = create_nonlocal(
        dim_in=channels, dim_inner=channels // 2 if inner is None else inner, instantiation="softmax"
    )
    nn.init.zeros_(block.get_submodule("norm").weight)  # type: ignore[arg-type]
    return block
