"""What of a network is kept as it is in training."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from a2video.errors import InputError
from a2video.optimizers import matches, matching


@dataclass(frozen=True)
class Freeze:
    """Parts without gradient and in evaluation mode, and batch norms that stay as they are.

    Attributes:
        parts: names in the network, such as `conv1`, `conv3.1` or, with wildcards, `*.attention`; everything in them
            is frozen: weights, running statistics, dropout.
        norm_statistics: every batch norm normalizes by its running statistics, which stay.
        norm_weights: the weights and biases of every batch norm stay.
    """

    parts: list[str] = field(default_factory=list)
    norm_statistics: bool = False
    norm_weights: bool = False

    def stop_gradients(self, network: nn.Module) -> None:
        """Once, before there is an optimizer.

        Raises:
            InputError: a part is not there, or there is no batch norm to freeze.
        """
        weights = dict(network.named_parameters())
        names = [name for name, _ in network.named_modules()] + list(weights)
        for pattern in self.parts:
            for name in matching(pattern, names, "model.freeze.parts"):
                if name in weights:
                    weights[name].requires_grad_(False)
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        if (self.norm_statistics or self.norm_weights) and not norms:
            raise InputError("model.freeze: the network has no batch norm: leave norm_statistics and norm_weights out")
        for norm in norms if self.norm_weights else ():
            norm.requires_grad_(False)

    def set_modes(self, network: nn.Module) -> None:
        """After each `network.train()`; modules are looked up anew, since SyncBN may have taken the place of some."""
        for name, module in network.named_modules():
            is_norm = self.norm_statistics and isinstance(module, _BatchNorm)
            if is_norm or any(matches(pattern, name) for pattern in self.parts):
                module.training = False
