"""An exported network in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a2video.errors import InputError
from a2video.inference.backends import Backend
from a2video.inference.description import INPUT, OUTPUT, Description
from a2video.inference.packages import optional_package
from a2video.inference.scoring import MAX_CLIPS


def self_contained(path: str | Path, content: bytes) -> bytes:
    """The same bytes of an ONNX file, if all its weights are in it.

    A network with weights elsewhere could make its reader open any file.

    Raises:
        InputError: it is no ONNX file, or it names other files.
    """
    onnx = optional_package("onnx", "onnx")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has its own, in several implementations
        raise InputError(f"{path} is no ONNX file that can be read: export it again") from error
    if any(message.DESCRIPTOR.name == "TensorProto" and message.external_data for message in _messages(model)):
        raise InputError(f"{path} names other files with its weights, which are not opened: keep all in one ONNX file")
    return content


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message with all that are in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(child)


def check_signature(path: str | Path, found: dict[str, Any], description: Description) -> None:
    """Compares the inputs and outputs that a runtime has found, {name: (type, sizes...)}, with the description's.

    Raises:
        InputError: they differ, so the description is that of another network.
    """
    expected = {INPUT: ("uint8", *description.clip_shape), OUTPUT: ("float32", len(description.class_names))}
    if found != expected:
        raise InputError(
            f"{path} has inputs and outputs {found}, where its description names {expected}: it belongs to another "
            "network"
        )


class OnnxBackend(Backend):
    """An exported network in ONNX Runtime.

    Args:
        path: where it comes from, for messages.
        content: of the ONNX file.
        description: what it should be.
        device: "auto" and "cpu" compute on the CPU, "cuda" on the first GPU, where ONNX Runtime can.
        num_threads: of the CPU; torch.get_num_threads() when None.

    Raises:
        InputError: it cannot be read, is another network, or the device cannot be used.
    """

    def __init__(
        self, path: Path, content: bytes, description: Description, device: str, num_threads: int | None
    ) -> None:
        runtime = optional_package("onnxruntime", "onnx")
        providers = {"auto": "CPUExecutionProvider", "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
        if providers.get(device) not in runtime.get_available_providers():
            raise InputError(f"device {device!r} cannot be used by the installed ONNX Runtime: choose auto or cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            self.session = runtime.InferenceSession(
                self_contained(path, content), options, providers=[providers[device]]
            )
        except InputError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be loaded by ONNX Runtime ({reason}): export it again") from error
        types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
        puts = [*self.session.get_inputs(), *self.session.get_outputs()]
        check_signature(path, {put.name: (types.get(put.type, put.type), *put.shape[1:]) for put in puts}, description)

    def __call__(self, clips: Tensor) -> Tensor:
        """See Backend."""
        parts = [self.session.run([OUTPUT], {INPUT: part.numpy()})[0] for part in torch.split(clips, MAX_CLIPS)]
        return torch.cat([torch.from_numpy(part) for part in parts])
