"""Optimizers with a learning rate and a weight decay for each parameter, chosen by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from a2video.errors import InputError


class OptimizerBuilder(ABC):
    """Makes an optimizer for what is to be trained in a network.

    Args:
        lr: base learning rate.
        weight_decay: of every parameter.
        decay_norms_and_biases: as in the paper; False keeps weight decay off biases and the weights of norms, that is
            off every parameter of one dimension or none.
        lr_factors: name pattern -> factor on lr, for parameters of the network. A pattern is a part of the network,
            such as `fc` or `conv3.1`, or has wildcards, such as `*.attention`; of several that match a parameter the
            last counts, so that {"*": 0.2, "fc": 1.0} trains a new classifier at five times the rate of the rest.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float,
        decay_norms_and_biases: bool = True,
        lr_factors: dict[str, float] | None = None,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise InputError(
                f"expected model.optimizer.lr >= 0 and model.optimizer.weight_decay >= 0, got {lr} and {weight_decay}"
            )
        for pattern, factor in (lr_factors or {}).items():
            if factor < 0:
                raise InputError(
                    f"model.optimizer.lr_factors must be at least 0, got {factor} for {pattern!r}; to keep a part of "
                    "the network as it is, use model.freeze"
                )
        self.lr = lr
        self.weight_decay = weight_decay
        self.decay_norms_and_biases = decay_norms_and_biases
        self.lr_factors = lr_factors or {}

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the network's parameters that require a gradient."""

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Parameters that share a rate and a decay, as torch's optimizers take them, in the order of the network.

        Raises:
            InputError: a pattern of lr_factors matches no parameter that is trained.
        """
        trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        factors = dict.fromkeys(trained, 1.0)
        for pattern, factor in self.lr_factors.items():
            factors |= dict.fromkeys(matching(pattern, trained, "model.optimizer.lr_factors"), factor)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, weight in trained.items():
            decays = self.decay_norms_and_biases or weight.ndim > 1
            groups.setdefault((factors[name], self.weight_decay if decays else 0.0), []).append(weight)
        return [
            {"params": weights, "lr": self.lr * factor, "weight_decay": decay}
            for (factor, decay), weights in groups.items()
        ]


class Sgd(OptimizerBuilder):
    """Stochastic gradient descent with Nesterov momentum, as in the paper.

    Args:
        lr: see OptimizerBuilder.
        momentum: in [0, 1).
        weight_decay: see OptimizerBuilder.
        decay_norms_and_biases: see OptimizerBuilder.
        lr_factors: see OptimizerBuilder.
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        decay_norms_and_biases: bool = True,
        lr_factors: dict[str, float] | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, decay_norms_and_biases, lr_factors)
        if not 0 <= momentum < 1:
            raise InputError(f"expected model.optimizer.momentum in [0, 1), got {momentum}")
        self.momentum = momentum

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """See OptimizerBuilder."""
        return torch.optim.SGD(self.groups(network), self.lr, self.momentum, nesterov=self.momentum > 0)


class AdamW(OptimizerBuilder):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Args:
        lr: see OptimizerBuilder.
        betas: of the running means of gradients and of their squares, each in [0, 1).
        weight_decay: see OptimizerBuilder.
        decay_norms_and_biases: see OptimizerBuilder.
        lr_factors: see OptimizerBuilder.
    """

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        decay_norms_and_biases: bool = True,
        lr_factors: dict[str, float] | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, decay_norms_and_biases, lr_factors)
        if not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"expected both of model.optimizer.betas in [0, 1), got {betas}")
        self.betas = betas

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """See OptimizerBuilder."""
        return torch.optim.AdamW(self.groups(network), self.lr, self.betas)


def keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A hook for the loading of a state: momenta are taken from it, rates and the like stay as they are configured.

    Raises:
        InputError: the state is of another optimizer, or of one of other parameters.
    """
    here, there = optimizer.param_groups, state["param_groups"]
    kind, kind_there = (
        {name for name, value in group.items() if type(value) in (int, float, tuple)}
        - {"initial_lr"}  # no flags of torch
        for group in (here[0], there[0])
    )
    sizes, sizes_there = ([len(group["params"]) for group in groups] for groups in (here, there))
    if kind != kind_there or sizes != sizes_there:
        raise InputError(
            f"the checkpoint's optimizer has {', '.join(sorted(kind_there))} and groups of {sizes_there} parameters, "
            f"but here it has {', '.join(sorted(kind))} and groups of {sizes}: let the class of model.optimizer, its "
            "lr_factors and decay_norms_and_biases, and model.freeze be as they were, or start a new training from its "
            "weights with --model.pretrained"
        )
    groups = [{**group, "params": old["params"]} for group, old in zip(here, there, strict=True)]
    return {**state, "param_groups": groups}


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is a name or its beginning up to a dot: `conv3` matches `conv3.1.bn1.weight`."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def matching(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """The names that a pattern matches.

    Raises:
        InputError: there are none.
    """
    names = list(names)
    found = [name for name in names if matches(pattern, name)]
    if not found:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names if name))
        raise InputError(f"{option}: {pattern!r} matches nothing; the parts to choose from are {parts}")
    return found
