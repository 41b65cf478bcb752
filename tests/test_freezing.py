from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyData, batch_of, fit
from torch import Tensor, nn

from a2video.errors import InputError
from a2video.freezing import Freeze
from a2video.models import a2net_tiny
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class OfAUser(nn.Module):
    """A network with a loose parameter, norms and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3, 1, 1, 1))
        self.body = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
        self.norm = nn.BatchNorm3d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, clips: Tensor) -> Tensor:
        y = self.norm(self.body(clips + self.offset))
        return self.head(y.flatten(2).square().mean(2))


def changed(network: nn.Module, folder: Path, freeze: Freeze | None) -> set[str]:
    """Names of what two epochs with validation change, compared bit by bit."""
    module = Recognizer(network, Sgd(0.1), freeze=freeze)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    draws = torch.Generator().manual_seed(0)
    batches = [batch_of(torch.rand(2, 3, 2, 8, 8, generator=draws), [0, 1]) for _ in range(2)]
    fit(module, TinyData(batches), folder, max_epochs=2)
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_what_is_frozen_is_bit_equal_after_a_fit_and_all_else_has_moved(tmp_path: Path) -> None:
    names = set(OfAUser().state_dict())
    norms = {name for name in names if name.startswith(("body.1.", "norm."))}
    statistics = {name for name in norms if name.endswith(STATISTICS)}
    body = {name for name in names if name.startswith("body.")}
    without_bias = names - {"body.0.bias", "offset"}  # these two only shift what a batch norm centres
    assert names >= changed(OfAUser(), tmp_path, None) >= without_bias
    assert changed(OfAUser(), tmp_path, Freeze(norm_statistics=True)) == names - statistics
    norm_weights = changed(OfAUser(), tmp_path, Freeze(norm_weights=True))
    assert norm_weights | {"body.0.bias", "offset"} == names - norms | statistics
    assert changed(OfAUser(), tmp_path, Freeze(["body", "offset"])) == names - body - {"offset"}
    assert changed(OfAUser(), tmp_path, Freeze(["*.1", "norm"], norm_statistics=True)) == names - norms


def test_stages_of_our_networks(tmp_path: Path) -> None:
    network = a2net_tiny(2)
    names = set(network.state_dict())
    frozen = {name for name in names if name.startswith(("conv1.", "conv2."))}
    moved = changed(network, tmp_path, Freeze(["conv1", "conv2"]))
    assert frozen
    assert not moved & frozen
    assert "conv3.1.bn1.weight" in moved
    assert network.conv3.training
    assert not network.conv2.training


def test_modes_survive_train() -> None:
    module = Recognizer(OfAUser(), Sgd(0.1), freeze=Freeze(["body"]))
    for _ in range(2):
        module.eval()
        assert module.train() is module
        assert [part.training for part in module.network.body] == [False] * 3  # dropout too
        assert module.network.norm.training
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(Recognizer(OfAUser(), Sgd(0.1), freeze=Freeze(["norm"])))
    assert isinstance(converted.network.norm, nn.SyncBatchNorm)
    assert not converted.train().network.norm.training
    assert converted.network.body[1].training


def test_wrong_names() -> None:
    with pytest.raises(InputError, match=r"freeze.parts: 'conv9' matches nothing; .* are body, norm, head, offset$"):
        Recognizer(OfAUser(), Sgd(0.1), freeze=Freeze(["conv9"]))
    with pytest.raises(InputError, match="has no parameter to train: give one, freeze less"):
        Recognizer(OfAUser(), Sgd(0.1), freeze=Freeze(["*"]))
    with pytest.raises(InputError, match="has no batch norm"):
        Recognizer(nn.Linear(1, 1), Sgd(0.1), freeze=Freeze(norm_statistics=True))
