"""Parts of a network whose activations are computed again in the backward pass instead of being kept until then."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from a2video.optimizers import matching


def recompute_parts(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Lets the parts that the patterns match keep their inputs alone for the backward pass.

    All results, weights, buffers and names stay what they are. Of parts within parts the outermost counts: `conv3`
    is recomputed as one, `conv3.*` block by block, which needs less memory while it happens.

    Returns:
        The names of the parts.

    Raises:
        InputError: a pattern matches nothing.
    """
    names = [name for name, module in network.named_modules() if name and _can_be_called(module)]
    wanted = [name for pattern in patterns for name in matching(pattern, names, "model.recompute")]
    outermost = [name for name in dict.fromkeys(wanted) if not any(name.startswith(f"{other}.") for other in wanted)]
    for name in outermost:
        part = network.get_submodule(name)
        kind = type(part)
        part.__class__ = type(kind.__name__, (_Recomputed, kind), {})  # hooks of the part are recomputed with it
    return outermost


class _Recomputed(nn.Module):
    """Put before the class of a part."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = super().__call__
        if not torch.is_grad_enabled():
            return call(*args, **kwargs)
        if torch.compiler.is_compiling():  # the compiler knows what a buffer is
            return checkpoint(call, *args, use_reentrant=False, **kwargs)
        contexts = nullcontext(), _CopiesOfBuffers(self)
        return checkpoint(call, *args, use_reentrant=False, context_fn=lambda: contexts, **kwargs)


class _CopiesOfBuffers:
    """A context in which a part has copies of its buffers, such as the running statistics of batch norm.

    What the second forward pass adds to them is thus forgotten. It can be entered again, for a second backward pass.
    """

    def __init__(self, part: nn.Module) -> None:
        self.part = part
        self._held: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        for module in self.part.modules():
            self._held += [(module, name, buffer) for name, buffer in module._buffers.items() if buffer is not None]
        for module, name, buffer in self._held:
            module._buffers[name] = buffer.clone()

    def __exit__(self, *exception: object) -> None:
        for module, name, buffer in self._held:
            module._buffers[name] = buffer
        self._held.clear()


def _can_be_called(module: nn.Module) -> bool:
    """Not so a ModuleList, of which only the members are called."""
    return type(module).forward is not nn.Module.forward
