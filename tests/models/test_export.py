"""Whole networks outside eager torch: torch.export and torch.compile with every size dynamic, ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from a2video.models import a2net_tiny


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = a2net_tiny(5)
    for name, parameter in network.named_parameters():
        if name.endswith("attention.norm.weight"):
            torch.nn.init.ones_(parameter)  # blocks that do something
    return network.eval()


SIZES = [(2, 3, 4, 32, 40), (1, 3, 9, 56, 32), (3, 3, 6, 33, 47)]


@torch.no_grad()
def test_every_size_is_dynamic(network: torch.nn.Module) -> None:
    dim = torch.export.Dim
    sizes = {
        0: dim("batch"),
        2: dim("frames", min=3),
        3: dim("height", min=9),
        4: dim("width", min=9),
    }  # 1 would be specialised
    exported = torch.export.export(network, (torch.randn(SIZES[0]),), dynamic_shapes=(sizes,)).module()
    compiled = torch.compile(network, dynamic=True, backend="aot_eager")
    for size in SIZES:
        x = torch.randn(size)
        assert torch.allclose(exported(x), network(x), atol=1e-4)
        assert torch.allclose(compiled(x), network(x), atol=1e-4)


@torch.no_grad()
def test_onnxruntime_gives_the_same_for_any_batch_size(network: torch.nn.Module, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            network,
            (torch.randn(2, 3, 8, 48, 48),),
            path,
            input_names=["clips"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        clips = torch.randn(batch, 3, 8, 48, 48)
        (logits,) = session.run(None, {"clips": clips.numpy()})
        np.testing.assert_allclose(logits, network(clips).numpy(), atol=1e-4)
