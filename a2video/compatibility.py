"""Whether a checkpoint fits what is to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
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
