"""Reads trained networks from files, executing nothing in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference.description import checked_names, read_exported
from a2video.models.description import build
from a2video.models.inflate import read_torch_file

CHECKPOINT_KEY = "a2video"  # what a Lightning checkpoint carries for us, beside "state_dict"
NETWORK_PREFIX = "network."  # of the network's weights in "state_dict"


@dataclass(frozen=True)
class Trained:
    """A network with what is needed to classify videos with it.

    Attributes:
        network: normalised clips (B, 3, T, H, W) -> logits (B, num_classes).
        class_names: in the order of the logits.
        preprocessing: from video to network input, and which views to average.
    """

    network: nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def load_trained(path: str | Path, network: nn.Module | None = None) -> Trained:
    """Rebuilds a network, its classes and its preprocessing from a checkpoint, or from weights with a description.

    Args:
        path: a file that `a2video fit` wrote, or a .safetensors file that `a2video export` wrote.
        network: a network of your own, to take the checkpoint's weights; built by a2video when None.

    Raises:
        InputError: the file is no such file, or holds a network that a2video did not build.
    """
    if Path(path).suffix == ".safetensors":
        description, contents = read_exported(path)
        return _trained(path, description.about, _tensors(path, contents[".safetensors"]), network)
    content = read_checkpoint(path)
    return _trained(path, content[CHECKPOINT_KEY], network_weights(content), network)


def _trained(
    path: str | Path, about: Mapping[str, Any], weights: Mapping[str, Tensor], network: nn.Module | None
) -> Trained:
    if network is None and about.get("network") is None:
        raise InputError(
            f"{path} holds a network that was not made by a builder of a2video.models: build it yourself "
            "and call VideoClassifier.load(checkpoint, network=yours) in Python"
        )
    try:
        class_names = checked_names(about["class_names"])
        preprocessing = Preprocessing.from_dict(about["preprocessing"])
        if network is None:
            network = build(about["network"], len(class_names))
        network.load_state_dict(weights)
        if len(class_names) != getattr(network, "num_classes", len(class_names)):
            raise ValueError(f"{len(class_names)} class names for another number of logits")
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} does not fit this version of a2video: {reason}") from error
    return Trained(network, class_names, preprocessing)


def _tensors(path: str | Path, content: bytes) -> dict[str, Tensor]:
    """The tensors by name in a safetensors file.

    Raises:
        InputError: it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no safetensors ({error}): export it again") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint of `a2video fit` as plain data and tensors, executing nothing in it.

    Raises:
        InputError: there is no such file, it is damaged, or it is no checkpoint of ours.
    """
    try:
        damaged = _damage(path)
        checkpoint = read_torch_file(path)
        if damaged is not None:
            raise ValueError(f"{path} is damaged (in {damaged})")
    except ValueError as error:
        raise InputError(f"{error}: give a .ckpt file that `a2video fit` wrote") from None
    parts = [checkpoint.get(key) if isinstance(checkpoint, dict) else None for key in (CHECKPOINT_KEY, "state_dict")]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path} was not written by a2video: give a .ckpt file that `a2video fit` wrote")
    content: dict[str, Any] = checkpoint
    return content


def _damage(path: str | Path) -> str | None:
    """Where the checksums in the file contradict its content, which torch.load does not look at; None if nowhere.

    Raises:
        ValueError: something in it is compressed, which torch.save never does, and might grow to any size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            is_compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            damaged = None if is_compressed else archive.testzip()
    except Exception:  # a damaged file can make zipfile raise anything
        return "its directory"
    if is_compressed:
        raise ValueError(f"{path} was not written by torch.save, for it is compressed")
    return damaged


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's own state dict out of a checkpoint's."""
    state = {str(name): value for name, value in checkpoint["state_dict"].items()}
    return {k.removeprefix(NETWORK_PREFIX): v for k, v in state.items() if k.startswith(NETWORK_PREFIX)}
