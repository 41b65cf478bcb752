"""From a checkpoint and a video to ranked labels, without Lightning."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from a2video.data.protocols import Average
from a2video.data.transforms import Preprocessing
from a2video.data.views import load_test_views
from a2video.errors import InputError
from a2video.models.description import build
from a2video.models.inflate import read_torch_file

CHECKPOINT_KEY = "a2video"  # what a Lightning checkpoint carries for us, beside "state_dict"
NETWORK_PREFIX = "network."  # of the network's weights in "state_dict"
MAX_CLIPS = 16  # clips in one forward pass: bounds the memory of a test with many views


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint of `a2video fit` as plain data and tensors, executing nothing in it.

    Raises:
        InputError: there is no such file, it is damaged, or it is no checkpoint of ours.
    """
    try:
        checkpoint = read_torch_file(path)
        _check_sums(path)
    except ValueError as error:
        raise InputError(f"{error}: give a .ckpt file that `a2video fit` wrote") from None
    parts = [checkpoint.get(key) if isinstance(checkpoint, dict) else None for key in (CHECKPOINT_KEY, "state_dict")]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path} was not written by a2video: give a .ckpt file that `a2video fit` wrote")
    content: dict[str, Any] = checkpoint
    return content


def _check_sums(path: str | Path) -> None:
    """Compares the checksums in the file with its content, which torch.load does not.

    Raises:
        ValueError: they differ.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # a damaged file can make zipfile raise anything
        damaged = "its directory"
    if damaged is not None:
        raise ValueError(f"{path} is damaged (in {damaged})")


def score_views(network: nn.Module, preprocessing: Preprocessing, clips: Tensor) -> Tensor:
    """Logits (N, num_classes) of uint8 clips (N, 3, T, H, W) on the network's device, MAX_CLIPS at a time."""
    return torch.cat([network(preprocessing.normalize(part)) for part in torch.split(clips, MAX_CLIPS)])


def score_steadily(network: nn.Module, preprocessing: Preprocessing, clips: Tensor, num_together: int) -> Tensor:
    """The same, with exactly `num_together` clips in every forward pass; the last one is filled with black clips.

    How many clips go through a network together changes the last bits of its logits (up to 1e-6 on a CPU, for other
    kernels are chosen), and so does the number of threads; which clips they are does not. So what comes out depends
    neither on batches nor on ranks.
    """
    num_black = -len(clips) % num_together
    filled = torch.cat([clips, clips.new_zeros(num_black, *clips.shape[1:])]) if num_black else clips
    parts = torch.split(filled, num_together)
    return torch.cat([network(preprocessing.normalize(part)) for part in parts])[: len(clips)]


def average_views(logits: Tensor, average: Average) -> Tensor:
    """The probabilities (K,) of a video from the logits (V, K) of its views; the same in testing and inference.

    Args:
        logits: of all views.
        average: "probs": the mean of the views' probabilities; "logits": the probabilities of the mean logits.
    """
    logits = logits.float()
    return logits.softmax(-1).mean(0) if average == "probs" else logits.mean(0).softmax(-1)


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one video.

    Attributes:
        path: the video.
        ranked: (class name, probability) of every class, the most probable first.
    """

    path: str
    ranked: tuple[tuple[str, float], ...]


class VideoClassifier:
    """A trained network with everything needed to classify a video file.

    Args:
        network: (B, 3, T, H, W) -> logits (B, num_classes).
        class_names: in the order of the logits.
        preprocessing: from video to network input, and which views to average.
        device: where to compute.
    """

    def __init__(
        self,
        network: nn.Module,
        class_names: tuple[str, ...],
        preprocessing: Preprocessing,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device).eval()
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.device = torch.device(device)

    @classmethod
    def load(cls, checkpoint: str | Path, device: str = "auto", network: nn.Module | None = None) -> VideoClassifier:
        """Rebuilds the network, its classes and its preprocessing from a checkpoint alone.

        Args:
            checkpoint: a file that `a2video fit` wrote.
            device: "auto" takes a GPU when there is one; otherwise any torch device, such as "cpu" or "cuda:1".
            network: a network of your own, to take the checkpoint's weights; built by a2video when None.

        Raises:
            InputError: the file is no such checkpoint, or holds a network that a2video did not build.
        """
        content = read_checkpoint(checkpoint)
        ours = content[CHECKPOINT_KEY]
        if network is None and ours.get("network") is None:
            raise InputError(
                f"{checkpoint} holds a network that was not made by a builder of a2video.models: build it yourself "
                "and call VideoClassifier.load(checkpoint, network=yours) in Python"
            )
        try:
            network = build(ours["network"]) if network is None else network
            network.load_state_dict(network_weights(content))
            class_names = tuple(ours["class_names"])
            preprocessing = Preprocessing.from_dict(ours["preprocessing"])
            if len(class_names) != getattr(network, "num_classes", len(class_names)):
                raise ValueError(f"{len(class_names)} class names for another number of logits")
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{checkpoint} does not fit this version of a2video: {reason}") from error
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return cls(network, class_names, preprocessing, device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {device!r} cannot be used ({reason}): choose auto, cpu or a GPU") from error

    @torch.inference_mode()
    def __call__(self, path: str | Path) -> Prediction:
        """Classifies one video by the mean of its views' probabilities, as `a2video test` does.

        Raises:
            VideoError: the video cannot be read.
        """
        clips = load_test_views(path, self.preprocessing).to(self.device)
        probs = average_views(score_views(self.network, self.preprocessing, clips).cpu(), "probs")
        ranked = probs.argsort(descending=True, stable=True).tolist()
        return Prediction(str(path), tuple((self.class_names[i], float(probs[i])) for i in ranked))


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's own state dict out of a checkpoint's."""
    state = checkpoint["state_dict"]
    return {k.removeprefix(NETWORK_PREFIX): v for k, v in state.items() if k.startswith(NETWORK_PREFIX)}
