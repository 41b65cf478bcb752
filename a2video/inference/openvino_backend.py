"""An exported network in OpenVINO, the quickest on Intel's and AMD's CPUs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a2video.errors import InputError
from a2video.inference.backends import Backend
from a2video.inference.description import Description
from a2video.inference.onnx_backend import check_signature, self_contained
from a2video.inference.packages import optional_package
from a2video.inference.scoring import MAX_CLIPS


class OpenVinoBackend(Backend):
    """An exported network in OpenVINO on the CPU.

    A float32 network is computed in float32, also where OpenVINO by itself would take bfloat16 because the CPU has it.

    Args:
        path: where it comes from, for messages.
        contents: of its files by suffix: .xml and .bin, or .onnx.
        description: what it should be.
        device: "auto" or "cpu".
        num_threads: torch.get_num_threads() when None.
        emulate: compute a bfloat16 network in bfloat16 even where the CPU has no instructions for it, which is slow;
            in float32 when False.

    Raises:
        InputError: it cannot be read, is another network, or the device cannot be used.
    """

    def __init__(
        self,
        path: Path,
        contents: dict[str, bytes],
        description: Description,
        device: str,
        num_threads: int | None,
        emulate: bool = False,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise InputError(f"device {device!r} cannot be used with OpenVINO here: choose auto or cpu")
        core = openvino_core()
        is_bf16 = description.precision == "bfloat16"
        is_bf16 &= emulate or "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_NUM_THREADS": num_threads or torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if is_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = read_model(core, path, contents)
            check_signature(path, _signature(model), description)
            self.model = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise InputError(f"{path} cannot be loaded by OpenVINO ({reason}): export it again") from error

    def __call__(self, clips: Tensor) -> Tensor:
        """See Backend."""
        parts = [self.model(part.numpy())[0] for part in torch.split(clips, MAX_CLIPS)]
        return torch.cat([torch.from_numpy(part.copy()) for part in parts])


def openvino_core() -> Any:
    """OpenVINO's entrance, one for a process and never given back.

    OpenVINO 2026.4 gives the thread that first asks it about the CPU another stack for signals. If that Core ends in
    another thread, where garbage may be collected, the memory is freed but stays in use: the next signal is a
    segmentation fault.
    """
    return _core(optional_package("openvino", "openvino"))


@cache
def _core(openvino: Any) -> Any:
    return openvino.Core()


def read_model(core: Any, path: Path, contents: dict[str, bytes]) -> Any:
    """The network as OpenVINO has it, from the content of its files."""
    if ".onnx" in contents:
        return core.read_model(self_contained(path, contents[".onnx"]))
    if not contents[".xml"].lstrip().startswith((b"<?xml", b"<net")):  # OpenVINO would read other formats there too
        raise InputError(f"{path} is no XML file of OpenVINO: export it again")
    return core.read_model(contents[".xml"], contents[".bin"])


def _signature(model: Any) -> dict[str, Any]:
    """See check_signature."""
    types = {"u8": "uint8", "f32": "float32"}
    found = {}
    for put in [*model.inputs, *model.outputs]:
        kind = put.element_type.get_type_name()
        sizes = [size.get_length() if size.is_static else "?" for size in put.partial_shape]
        found[put.any_name] = (types.get(kind, kind), *sizes[1:])
    return found
