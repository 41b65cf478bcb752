"""bf16 on a CPU: some builds of torch leave a weight gradient as uninitialised memory, which ends in NaN.

Seen with torch 2.13.0 (oneDNN) on a Xeon with AVX-512: a 3D convolution in bf16 whose kernel is three deep, with stride
and padding one in time, over exactly two frames. Float32, other depths, and bf16 without oneDNN are right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from a2video.errors import InputError

NUM_TRIES = 4  # the memory may hold zeros by chance


@cache
def gradient_is_wrong() -> bool:
    """Whether this build of torch computes that gradient wrongly on this CPU."""
    draws = torch.Generator().manual_seed(0)
    clips = torch.randn(4, 16, 2, 6, 6, generator=draws)
    weight = torch.randn(16, 16, 3, 3, 3, generator=draws)
    expected = _gradient(clips, weight)
    for _ in range(NUM_TRIES):
        junk = [torch.full(weight.shape, 1e30) for _ in range(3)]
        del junk  # so that uninitialised memory shows
        error = (_gradient(clips.bfloat16(), weight.bfloat16()).float() - expected).abs().max()
        if not error < 0.05 * expected.abs().max():
            return True
    return False


def _gradient(clips: Tensor, weight: Tensor) -> Tensor:
    weight = weight.clone().requires_grad_()
    return torch.autograd.grad(conv3d(clips, weight, padding=1).square().sum(), weight)[0]


def refuse_two_frames(network: nn.Module) -> None:
    """Lets a training pass fail in which a convolution of the network would get such a gradient.

    Raises:
        InputError: in the network's forward pass.
    """

    def refuse(convolution: nn.Conv3d, args: tuple[Any, ...]) -> None:
        frames = tuple(args[0].shape[2:])
        if convolution.training and (convolution.kernel_size[0], convolution.stride[0], frames[0]) == (3, 1, 2):
            raise InputError(
                f"trainer.precision: torch {torch.__version__} computes wrong weight gradients in bf16 on this CPU "
                f"where a convolution three frames deep sees two, as {frames} here: train in 32-true, or with another "
                "data.preprocessing.num_frames"
            )

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(refuse)
