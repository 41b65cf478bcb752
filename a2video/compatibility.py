"""Whether network, data and configuration fit each other, and a checkpoint what is to go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from a2video.data.transforms import Preprocessing
from a2video.errors import InputError


def refuse_other_training(
    ours: Mapping[str, Any], network: nn.Module, class_names: tuple[str, ...], preprocessing: Preprocessing
) -> None:
    """Compares what a checkpoint has under CHECKPOINT_KEY; the views of a test (num_clips, num_crops) may differ.

    Raises:
        InputError: it was made for other classes, another network or another preprocessing.
    """
    here = {
        "model.network": getattr(network, "description", None),
        "the data's class names": list(class_names),
    }
    there = {"model.network": ours["network"], "the data's class names": ours["class_names"]}
    trained = Preprocessing.from_dict(ours["preprocessing"]).to_dict()  # with defaults for what is newer than it
    for name, value in preprocessing.to_dict().items():
        if name not in ("num_clips", "num_crops"):
            here[f"data.preprocessing.{name}"] = value
            there[f"data.preprocessing.{name}"] = trained[name]
    for name, value in here.items():
        if value != there[name]:
            raise InputError(
                f"the checkpoint was trained with {name} = {there[name]}, but here it is {value}: use the "
                "checkpoint's own"
            )


def check_num_classes(num_logits: int, class_names: Sequence[str]) -> None:
    """Refuses a network that has not one logit for each class of the data.

    Raises:
        InputError: the numbers differ.
    """
    if num_logits != len(class_names):
        remedy = "correct the labels"
        if num_logits > len(class_names):
            remedy = (
                "if the list has a part of a data set, name all classes by data.class_names (the official list, "
                "classInd.txt, or a file with one name on each line) or give the official list with "
                "data.allow_missing"
            )
        raise InputError(
            f"the network gives {num_logits} logits but the data has {len(class_names)} classes: set "
            f"model.network.init_args.num_classes to {len(class_names)}, or {remedy}"
        )


@contextmanager
def refusals_are_input_errors() -> Iterator[None]:
    """Around a forward pass: what a network or torch.compile refuses is a mistake in the configuration."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:  # what our networks raise for clips they cannot take
        raise InputError(f"model.network does not take clips of data.preprocessing: {error}") from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next(line for line in str(error).splitlines() if line.strip())
        raise InputError(
            f"model.compile: the network cannot be compiled here ({reason.strip()}): leave "
            "model.compile out, or install the C++ compiler if it is that which is missing"
        ) from error
