"""How a model was built, as plain data: what a checkpoint needs to rebuild it without any configuration file."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import nn

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)


def described(builder: Callable[P, M]) -> Callable[P, M]:
    """Makes `builder` leave `model.description = {"builder": name, "arguments": {...}}` on what it returns."""
    signature = inspect.signature(builder)

    @functools.wraps(builder)
    def build_described(*args: P.args, **kwargs: P.kwargs) -> M:
        model = builder(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {name: list(v) if isinstance(v, tuple) else v for name, v in bound.arguments.items()}
        model.description = {"builder": builder.__name__, "arguments": arguments}  # type: ignore[assignment]
        return model

    return build_described


def build(description: dict[str, Any], num_classes: int | None = None) -> nn.Module:
    """Builds the model a description stands for, with random weights.

    Only the builders that `a2video.models` names are ever called, so a description from a file is safe to build.

    Args:
        description: see described; from anywhere.
        num_classes: that it must have; any when None.

    Raises:
        ValueError: the builder is unknown to this version, or does not take these arguments.
    """
    from a2video import models

    name, arguments = description.get("builder"), description.get("arguments")
    if not isinstance(name, str) or name not in models.BUILDERS or not isinstance(arguments, dict):
        raise ValueError(
            f"unknown model builder {str(name)[:80]!r}: this version of a2video has "
            f"{', '.join(sorted(models.BUILDERS))}"
        )
    for argument, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | float | list):
            raise ValueError(f"model builder {name} takes numbers and lists, got {str(value)[:80]!r} for {argument!r}")
    if num_classes is not None and (found := arguments.get("num_classes")) != num_classes:
        raise ValueError(f"{num_classes} class names, but num_classes is {str(found)[:80]}")
    try:
        model: nn.Module = models.BUILDERS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"model builder {name} does not take the stored arguments: {error}") from error
    return model
