from __future__ import annotations

import pytest
import torch
from torch import nn

from a2video.models import DoubleAttention, insert_blocks, non_local


class Foreign(nn.Module):
    """A network of somebody else: nested modules, a Sequential, an odd last layer in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU())
        self.body = nn.ModuleDict({"a": Residual(8), "b": Residual(8)})
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.body["b"](self.body["a"](self.stem(x))))
        return self.head(x.mean((2, 3, 4)))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv3d(channels, 4, 1), nn.ReLU(), nn.Conv3d(4, channels, 1))
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.inner(x))


def test_inserted_blocks_change_nothing_until_trained_and_keep_all_names() -> None:
    torch.manual_seed(0)
    network = Foreign().eval()
    x = torch.randn(2, 3, 4, 6, 6)
    before, weights = network(x), {k: v.clone() for k, v in network.state_dict().items()}
    insert_blocks(network, {"stem": DoubleAttention, "body.a": DoubleAttention, "body.b": non_local})
    network.eval()
    assert torch.equal(network(x), before)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert {name.split(".attention.")[0] for name in missing} == {"stem", "body.a", "body.b"}
    for name in ("stem", "body.a", "body.b"):  # and each of them is really on the way
        scale = network.get_submodule(name).attention.norm.weight
        nn.init.ones_(scale)
        assert not torch.allclose(network(x), before)
        nn.init.zeros_(scale)


def test_channels_are_found() -> None:
    seen = []

    def factory(channels: int) -> nn.Module:
        seen.append(channels)
        return nn.Identity()

    insert_blocks(Foreign(), {"body.a": factory, "body.b.inner.0": factory})
    assert seen == [8, 4]


class Twice(nn.Sequential):
    """A Sequential with a forward of its own, which does not run a new child."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[0](self[0](x))


def test_a_sequential_with_its_own_forward() -> None:
    network = Twice(nn.Conv3d(4, 4, 1))
    x = torch.randn(2, 4, 2, 3, 3)
    before = network(x)
    wrapper = nn.Sequential(network)
    insert_blocks(wrapper, {"0": DoubleAttention})
    assert torch.equal(wrapper(x), before)
    nn.init.ones_(network.attention.norm.weight)
    assert not torch.allclose(wrapper(x), before)


def test_a_submodule_that_gives_something_else_is_named() -> None:
    class Concatenates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, self.conv(x)], dim=1)

    network = insert_blocks(nn.Sequential(Concatenates()), {"0": DoubleAttention})
    with pytest.raises(ValueError, match=r"block after '0' was made for \(B, 4, .*gives \(1, 8, 2, 3, 3\)"):
        network(torch.zeros(1, 4, 2, 3, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("body", "is a list of modules"),
        ("body.c", r"no submodule 'body\.c'; the nearest names are body\.[ab], body"),
        ("act", "no convolution and no batch norm"),
        ("", "no submodule ''"),
    ],
)
def test_wrong_places(name: str, message: str) -> None:
    network = Foreign()
    with pytest.raises(ValueError, match=message):
        insert_blocks(network, {"body.a": DoubleAttention, name: DoubleAttention})
    assert not hasattr(network.body["a"], "attention")  # nothing was changed


def test_no_second_block_in_one_place() -> None:
    network = insert_blocks(Foreign(), {"body.a": DoubleAttention})
    with pytest.raises(ValueError, match="has a child 'attention' already"):
        insert_blocks(network, {"body.a": DoubleAttention})


def test_non_local_is_the_identity_at_first_and_learns() -> None:
    block = non_local(8)
    x = torch.randn(2, 8, 2, 3, 3)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.norm.weight.grad.abs().sum() > 0
