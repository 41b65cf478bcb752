from __future__ import annotations

import pytest
import torch
from reference import double_attention as reference

from a2video.models import DoubleAttention

SHAPES = {1: (7,), 2: (3, 4), 3: (2, 3, 4)}


def random_block(
    dims: int = 3, channels: int = 6, c_m: int = 5, c_n: int = 4, textbook: bool = False
) -> DoubleAttention:
    """A block in float64 whose norm passes its input on, so that it computes x + W_out Z + b_out."""
    torch.manual_seed(0)
    block = DoubleAttention(channels, c_m, c_n, dims, textbook).double().eval()
    torch.nn.init.ones_(block.norm.weight)
    block.norm.eps = 0.0
    return block


def arrays(block: DoubleAttention) -> list[tuple]:
    convolutions = (block.phi, block.theta, block.rho, block.out)
    return [(conv.weight.flatten(1).detach().numpy(), conv.bias.detach().numpy()) for conv in convolutions]


@pytest.mark.parametrize("textbook", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equals_the_equations(dims: int, textbook: bool) -> None:
    block = random_block(dims, textbook=textbook)
    x = torch.randn(3, 6, *SHAPES[dims], dtype=torch.float64)
    expected = x.flatten(2).numpy() + reference(x.flatten(2).numpy(), *arrays(block))
    actual = block(x).flatten(2).detach()
    assert torch.allclose(actual, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)
    assert (actual - x.flatten(2)).abs().max() > 0.05  # the block does something here


def test_both_forms_have_the_same_gradients() -> None:
    cheap, textbook = random_block(), random_block(textbook=True)
    textbook.load_state_dict(cheap.state_dict())
    gradients = []
    for block in (cheap, textbook):
        x = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        block(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in block.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("textbook", [False, True])
def test_gradcheck(textbook: bool) -> None:
    block = random_block(channels=3, c_m=2, c_n=2, textbook=textbook)
    assert torch.autograd.gradcheck(block, torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("textbook", [False, True])
def test_new_block_is_the_identity_and_can_learn(textbook: bool) -> None:
    block = DoubleAttention(8, textbook=textbook)
    x = torch.randn(2, 8, 2, 3, 3)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.norm.weight.grad is not None
    assert block.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("textbook", [False, True])
def test_a_sample_does_not_depend_on_its_batch_mates(textbook: bool) -> None:
    block = random_block(textbook=textbook)
    x = torch.randn(4, 6, 2, 3, 4, dtype=torch.float64)
    assert torch.allclose(block(x)[2], block(x[2:3])[0], rtol=1e-12)


def test_permuting_positions_permutes_the_output() -> None:
    block = random_block(dims=1)
    x = torch.randn(2, 6, 7, dtype=torch.float64)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(block(x[:, :, order]), block(x)[:, :, order], rtol=1e-12)


def test_gather_sums_to_one_over_positions_and_distribute_over_descriptors() -> None:
    gather, distribute = random_block()._weights(torch.randn(2, 6, 2, 3, 4, dtype=torch.float64))
    assert gather.shape == distribute.shape == (2, 4, 24)
    assert torch.allclose(gather.sum(2), torch.ones(2, 4, dtype=torch.float64))
    assert torch.allclose(distribute.sum(1), torch.ones(2, 24, dtype=torch.float64))


def test_defaults_to_half_the_channels() -> None:
    block = DoubleAttention(12)
    assert block.phi.weight.shape == (6, 12, 1, 1, 1)
    assert block.theta.weight.shape == block.rho.weight.shape == (6, 12, 1, 1, 1)
    assert block.out.weight.shape == (12, 6, 1, 1, 1)


def test_bfloat16_autocast_stays_close() -> None:
    block = random_block().float()
    x = torch.randn(2, 6, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert torch.allclose(y, block(x), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "at least 1, got 0"), ((8, 0), "got 8, 0"), ((8, 4, 4, 4), "dims must be 1, 2 or 3")],
)
def test_wrong_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DoubleAttention(*arguments)
