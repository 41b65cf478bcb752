from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import TinyData, batch_of, fit
from torch import Tensor, nn

from a2video.errors import InputError
from a2video.models import DoubleAttention
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch.compile that traces and differentiates as ever, but makes no machine code; the graphs' batch sizes."""
    batch_sizes: list[int] = []

    def note(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        from torch._dynamo.backends.debugging import aot_eager

        batch_sizes.append(len(next(each for each in inputs if isinstance(each, Tensor) and each.ndim == 5)))
        return aot_eager(graph, inputs)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=note))
    return batch_sizes


def trained(folder: Path, **options: object) -> Recognizer:
    torch.manual_seed(0)
    part = nn.Sequential(nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout(0.5), DoubleAttention(4))
    network = nn.Sequential(nn.Conv3d(3, 4, 1), part, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
    module = Recognizer(network, Sgd(0.1), **options)
    clips = torch.rand(5, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TinyData([batch_of(clips[:3], [0, 1, 0]), batch_of(clips[3:], [1, 0])])  # the second one is smaller
    fit(module, data, folder, max_epochs=2)
    return module


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_results_names_and_how_often_it_compiles(tmp_path: Path, quick_compiler: list[int]) -> None:
    expected = trained(tmp_path / "eager").network.state_dict()
    assert quick_compiler == []
    trained(tmp_path / "compiled", compile=True, recompute=["1"])
    assert quick_compiler == [3, 2, 3, 2]  # each size in evaluation (the sanity check), then in training
    ours = torch.load(tmp_path / "compiled/last.ckpt", weights_only=True)["state_dict"]
    assert list(ours) == [f"network.{name}" for name in expected]
    for name, value in expected.items():
        assert torch.allclose(ours[f"network.{name}"].float(), value.float(), atol=1e-5)


def test_no_compiler_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/no/compiler"))
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(InputError, match=r"model.compile: the network cannot be compiled here \(.*C\+\+ compiler"):
        trained(tmp_path, compile=True)
