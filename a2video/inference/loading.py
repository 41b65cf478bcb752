"""Which runtime computes a network, by the file that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference.backends import Backend, TorchBackend
from a2video.inference.description import read_exported
from a2video.inference.weights import load_trained
from a2video.models.faster_inference import prepare_for_inference
from a2video.models.resnet import ResNet

CHOICES = ("auto", "torch", "onnxruntime", "openvino")
FITTING = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}  # the first is what "auto" takes
OTHERWISE = ("torch",)


class Loaded(NamedTuple):
    """A network that computes, with what is needed to classify videos with it."""

    backend: Backend
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def load(
    path: str | Path,
    device: str = "auto",
    network: nn.Module | None = None,
    backend: str = "auto",
    num_threads: int | None = None,
    emulate: bool = False,
) -> Loaded:
    """Loads a network from a file; see VideoClassifier.load and, for `emulate`, OpenVinoBackend.

    Raises:
        InputError: the file holds no such network, or these choices do not fit each other.
    """
    path = Path(path)
    name = _choose(path, backend)
    if num_threads is not None and num_threads < 1:
        raise InputError(f"num_threads must be at least 1, got {num_threads}")
    if name == "torch":
        trained = load_trained(path, network)
        torch_backend = TorchBackend(trained.network, trained.preprocessing, device, num_threads)
        if network is None and isinstance(trained.network, ResNet):
            prepare_for_inference(trained.network, torch_backend.device)
        return Loaded(torch_backend, trained.class_names, trained.preprocessing)
    if network is not None:
        raise InputError(f"{path} has its own network: leave `network` out, or give a checkpoint")
    description, contents = read_exported(path)
    made: Backend
    if name == "openvino":
        from a2video.inference.openvino_backend import OpenVinoBackend

        made = OpenVinoBackend(path, contents, description, device, num_threads, emulate)
    else:
        from a2video.inference.onnx_backend import OnnxBackend

        made = OnnxBackend(path, contents[".onnx"], description, device, num_threads)
    return Loaded(made, description.class_names, description.preprocessing)


def _choose(path: Path, backend: str) -> str:
    fitting = FITTING.get(path.suffix, OTHERWISE)
    if backend not in CHOICES:
        raise InputError(f"backend {backend!r} is none of {', '.join(CHOICES)}")
    if backend != "auto" and backend not in fitting:
        raise InputError(
            f"backend {backend!r} does not compute {path}: choose {' or '.join(fitting)}, or a file made for it by "
            "`a2video export`"
        )
    return fitting[0] if backend == "auto" else backend
