from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import TinyData, batch_of, fit
from torch import Tensor, nn

from a2video.errors import InputError
from a2video.models import a2net_tiny
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer
from a2video.recompute import recompute_parts


class WithDropoutInside(nn.Module):
    """A network of a user's, whose parts lie in a list and have dropout and a buffer that each pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 1)
        part = nn.Sequential(nn.BatchNorm3d(4), nn.Dropout(0.5), nn.Conv3d(4, 4, 1), nn.ReLU())
        self.blocks = nn.ModuleList([part, nn.BatchNorm3d(4, momentum=None)])
        self.head = nn.Linear(4, 2)

    def forward(self, clips: Tensor) -> Tensor:
        y = self.stem(clips)
        for block in self.blocks:
            y = block(y)
        return self.head(y.flatten(2).square().mean(2))


def trained(build: Callable[[], nn.Module], folder: Path, **options: object) -> dict[str, Tensor]:
    """The network after four steps on four batches, and a validation after each two."""
    torch.manual_seed(0)
    module = Recognizer(build(), Sgd(0.1), **options)
    draws = torch.Generator().manual_seed(0)
    batches = [batch_of(torch.rand(2, 3, 4, 16, 16, generator=draws), [0, 1]) for _ in range(2)]
    fit(module, TinyData(batches), folder, max_epochs=2)
    return module.network.state_dict()


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: a2net_tiny(2, dropout=0.5), ["conv2", "conv3.*", "*.attention", "dropout"]),
        (WithDropoutInside, ["blocks"]),
    ],
)
def test_weights_and_buffers_are_bit_equal(build: Callable[[], nn.Module], parts: list[str], tmp_path: Path) -> None:
    expected = trained(build, tmp_path)
    ours = trained(build, tmp_path, recompute=parts)
    assert list(ours) == list(expected)
    assert [name for name, value in expected.items() if not torch.equal(ours[name], value)] == []
    assert {int(value) for name, value in ours.items() if name.endswith("num_batches_tracked")} == {4}


def kept_for_backward(network: nn.Module, clips: Tensor) -> int:
    """Bytes of tensors that a forward pass leaves behind, other than the network's own."""
    own = {weight.untyped_storage().data_ptr() for weight in [*network.parameters(), *network.buffers()]}
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(clips)  # the output's graph keeps every storage alive until here
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in own)


def test_less_is_kept_until_the_backward_pass() -> None:
    clips = torch.rand(2, 3, 8, 32, 32)
    whole, stages, blocks = (a2net_tiny(2) for _ in range(3))
    assert recompute_parts(stages, ["conv2", "conv3", "conv3.1"]) == ["conv2", "conv3"]
    assert recompute_parts(blocks, ["conv2.*", "conv3.*"])[:1] == ["conv2.1"]
    kept = [kept_for_backward(network, clips) for network in (whole, blocks, stages)]
    assert kept[0] > 1.5 * kept[1]
    assert kept[1] >= kept[2]


def test_backward_twice_and_a_name_that_matches_nothing() -> None:
    network = WithDropoutInside()
    recompute_parts(network, ["blocks.0"])
    loss = network(torch.rand(2, 3, 2, 4, 4)).sum()
    first = torch.autograd.grad(loss, network.stem.weight, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, network.stem.weight)[0], first)
    assert int(network.blocks[0][0].num_batches_tracked) == 1
    with pytest.raises(
        InputError,
        match=r"^model.recompute: 'conv9' matches nothing; the parts to choose from are conv1, conv2, conv3, conv4, bn",
    ):
        Recognizer(a2net_tiny(2), Sgd(0.1), recompute=["conv9"])
