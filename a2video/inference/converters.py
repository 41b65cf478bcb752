"""From a torch network to files that other runtimes read."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.inference.description import INPUT, OUTPUT
from a2video.inference.openvino_backend import openvino_core
from a2video.inference.packages import optional_package
from a2video.inference.weights import Trained

MAX_CALIBRATION = 300  # clips


class RawClips(nn.Module):
    """A network with its normalisation: uint8 clips (N, 3, T, H, W) -> logits (N, K)."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing

    def forward(self, clips: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.network(self.preprocessing.normalize(clips))
        return logits


def write_safetensors(trained: Trained, path: Path) -> None:
    """Writes the weights under the network's own names."""
    from safetensors.torch import save

    path.write_bytes(save({name: value.contiguous() for name, value in trained.network.state_dict().items()}))


def write_onnx(trained: Trained, path: Path) -> None:
    """Writes one file with all weights in it, for any number of clips; protobuf allows 2 GB."""
    onnx = optional_package("onnx", "onnx")
    optional_package("onnxscript", "onnx")
    p = trained.preprocessing
    clips = torch.zeros(2, 3, p.num_frames, p.crop_size, p.crop_size, dtype=torch.uint8)
    raw = RawClips(trained.network.cpu().float().eval(), p)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            raw,
            (clips,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph]:
        del part.metadata_props[:]  # traces of this machine's files, which are nobody's business
    onnx.save(model, path)


def write_openvino(onnx_file: Path, path: Path, is_half: bool) -> None:
    """Writes path.xml and path.bin from an ONNX file; `is_half`: weights in 16 bits."""
    openvino = optional_package("openvino", "openvino")
    openvino.save_model(openvino_core().read_model(onnx_file.read_bytes()), path, compress_to_fp16=is_half)


def write_int8(onnx_file: Path, path: Path, clips: Iterable[Tensor]) -> None:
    """Writes path.xml and path.bin with convolutions in 8 bits, whose ranges are those that `clips` (1, ...) show.

    The matrix products of attention stay as they are: OpenVINO 2026.4 refuses to load them quantised (their weights
    are on the left), and they are a small part of the work.
    """
    openvino, nncf = optional_package("openvino", "openvino"), optional_package("nncf", "int8")
    nncf.set_log_level(logging.ERROR)
    model = openvino_core().read_model(onnx_file.read_bytes())
    data = nncf.Dataset([part.numpy() for part in clips])
    scope = nncf.IgnoredScope(types=["MatMul"], validate=False)
    with _quiet(), redirect_stdout(sys.stderr):  # (its progress bars)
        quantised = nncf.quantize(model, data, subset_size=MAX_CALIBRATION, ignored_scope=scope)
    openvino.save_model(quantised, path, compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and log lines of exporters, which are about themselves."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
