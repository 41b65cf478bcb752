"""Puts blocks into any network without touching its code or the names of its weights."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

BLOCK_NAME = "attention"  # of a block below the module it follows


def insert_blocks(model: nn.Module, blocks: Mapping[str, Callable[[int], nn.Module]]) -> nn.Module:
    """Puts a block right after named submodules of any network, in place.

    The block becomes the child `attention` of the submodule it follows and works on that one's output, so every old
    weight keeps its name and old state dicts load with `strict=False`. With blocks that start as the identity, such
    as DoubleAttention, the network's output does not change at first.

    Args:
        model: any network whose named submodules give one tensor (B, c, *positions).
        blocks: dotted submodule name -> function that takes the number of channels c and returns the block, e.g.
            `{"layer3.0": lambda c: DoubleAttention(c, dims=2)}`. c is what the submodule's last convolution or batch
            norm gives.

    Returns:
        The model.

    Raises:
        ValueError: there is no such submodule (the nearest names are listed), it has a block already, or its channels
            cannot be told. At the first forward: the submodule gives something else than (B, c, *positions).
    """
    names = [name for name, _ in model.named_modules() if name]
    found = {}
    for name in blocks:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            raise ValueError(f"the network has no submodule {name!r}; the nearest names are {', '.join(near)}")
        found[name] = model.get_submodule(name)
        if isinstance(found[name], (nn.ModuleList, nn.ModuleDict)):
            raise ValueError(f"submodule {name!r} is a list of modules, which never runs itself: name one of them")
        if hasattr(found[name], BLOCK_NAME):
            raise ValueError(f"submodule {name!r} has a child {BLOCK_NAME!r} already")
    channels = {name: _output_channels(name, module) for name, module in found.items()}
    for name, module in found.items():
        module.add_module(BLOCK_NAME, blocks[name](channels[name]))
        if type(module).forward is not nn.Sequential.forward:  # a Sequential runs its new last child by itself
            module.register_forward_hook(_ApplyBlock(name, channels[name]))
    return model


class _ApplyBlock:
    """Forward hook: the output of a module goes through its block."""

    def __init__(self, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 3 or output.shape[1] != self.channels:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the block after {self.name!r} was made for (B, {self.channels}, *positions), which its last layer "
                f"gives, but the submodule gives {found}: put it after another one"
            )
        attended: Tensor = module.get_submodule(BLOCK_NAME)(output)
        return attended


def _output_channels(name: str, module: nn.Module) -> int:
    """The channels that the last convolution or batch norm in a module gives."""
    for layer in reversed(list(module.modules())):
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return layer.out_channels
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return layer.num_features
    raise ValueError(f"submodule {name!r} has no convolution and no batch norm to tell its channels from")
