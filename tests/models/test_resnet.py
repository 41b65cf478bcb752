from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from a2video.models import BUILDERS, DoubleAttention, ResNet3d, a2net_resnet26, a2net_tiny, resnet26
from a2video.models.description import build

# Arithmetic on the paper's table: millions of parameters (with 4 numbers a BatchNorm channel), 10^9 multiply-adds of
# the textbook form, input (T, H, W). paper.md sections 2 and 3; the paper prints 7.04, 7.62, 33.4, 40.8 M and 40.8 G.
PAPER = {
    "resnet26": (7.044, 8.27, (16, 112, 112)),
    "resnet29": (7.621, 9.17, (16, 112, 112)),
    "resnet50": (33.42, 30.52, (8, 224, 224)),
    "a2net_resnet50": (40.79, 40.80, (8, 224, 224)),
}


@pytest.mark.parametrize("name", PAPER)
def test_parameters_and_multiply_adds_match_the_paper(name: str) -> None:
    millions, giga, size = PAPER[name]
    model = BUILDERS[name](400).eval()
    for module in model.modules():
        if isinstance(module, DoubleAttention):
            module.textbook = True
    running = sum(b.numel() for n, b in model.named_buffers() if "running" in n)
    assert (sum(p.numel() for p in model.parameters()) + running) / 1e6 == pytest.approx(millions, rel=5e-4)
    counter = FlopCountAnalysis(model, torch.zeros(1, 3, *size)).unsupported_ops_warnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_operator: Counter[str] = counter.by_operator()
    counted = sum(by_operator[kind] for kind in ("conv", "linear", "matmul", "bmm")) / 1e9
    assert counted == pytest.approx(giga, rel=5e-4)


@pytest.fixture(scope="module", params=list(BUILDERS))
def network(request: pytest.FixtureRequest) -> ResNet3d:
    torch.manual_seed(0)
    model = BUILDERS[request.param](5)
    assert isinstance(model, ResNet3d)
    return model


def clips(network: ResNet3d, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 4, 32, 40, generator=torch.Generator().manual_seed(1))


class TestEveryBuilder:
    def test_gives_raw_logits_in_train_and_eval(self, network: ResNet3d) -> None:
        for mode in (True, False):
            logits = network.train(mode)(clips(network))
            assert logits.shape == (2, 5)
            assert torch.isfinite(logits).all()
            assert not torch.allclose(logits.sum(1), torch.ones(2))  # no softmax inside

    def test_trains_every_parameter_and_stays_finite(self, network: ResNet3d) -> None:
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for _ in range(3):  # double attention starts as the identity: its inner weights move from the second step on
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(clips(network)), torch.tensor([0, 1])).backward()
            optimizer.step()
        unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # a bias before batch norm, and one that shifts a softmax over all its entries, change nothing
        assert [n for n in unused if not n.endswith(("_attention.out.bias", "_attention.theta.bias"))] == []
        assert all(torch.isfinite(p).all() for p in network.parameters())

    def test_can_be_rebuilt_from_its_description(self, network: ResNet3d) -> None:
        copy = build(network.description)
        copy.load_state_dict(network.state_dict())
        x = clips(network)
        assert torch.equal(copy.eval()(x), network.eval()(x))

    def test_a_sample_does_not_depend_on_its_batch_mates(self, network: ResNet3d) -> None:
        x = clips(network, 3)
        assert torch.allclose(network.eval()(x)[1], network(x[1:2])[0], atol=1e-4)

    @pytest.mark.parametrize("shape", [(1, 3, 2, 32, 32), (1, 3, 5, 33, 47), (1, 3, 16, 32, 64)])
    def test_takes_any_size(self, network: ResNet3d, shape: tuple[int, ...]) -> None:
        assert network.eval()(torch.zeros(shape)).shape == (1, 5)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 3, 8, 4, 64), r"at least .* in \(T, H, W\), got \(8, 4, 64\)"),
            ((1, 3, 1, 64, 64), r"got \(1, 64, 64\)"),
            ((1, 1, 8, 64, 64), r"shape \(B, 3, T, H, W\), got \(1, 1, 8, 64, 64\)"),
            ((3, 8, 64, 64), r"got \(3, 8, 64, 64\)"),
        ],
    )
    def test_refuses_other_sizes(self, network: ResNet3d, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            network(torch.zeros(shape))


def test_attention_goes_where_it_is_asked_and_changes_nothing_at_first() -> None:
    torch.manual_seed(0)
    plain = resnet26(4).eval()
    attended = a2net_resnet26(4, places=["conv3.2", "conv4.1"]).eval()
    missing, unexpected = attended.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.rsplit(".", 2)[0] for name in missing} == {"conv3.2_attention", "conv4.1_attention"}
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(plain(x), attended(x))
    block = attended.get_submodule("conv4.1_attention")
    assert isinstance(block, DoubleAttention)
    assert block.theta.weight.shape == (128, 512, 1, 1, 1)


def test_wrong_place_is_named() -> None:
    with pytest.raises(ValueError, match=r"no residual block is named 'conv9\.1'; this network has conv2\.1, conv2\.2"):
        a2net_resnet26(4, places=["conv9.1"])


def test_wrong_number_of_classes() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        a2net_tiny(0)


def test_only_known_builders_are_built() -> None:
    with pytest.raises(ValueError, match=r"unknown model builder 'os\.system'"):
        build({"builder": "os.system", "arguments": {"command": "true"}})
    with pytest.raises(ValueError, match="does not take the stored arguments"):
        build({"builder": "a2net_tiny", "arguments": {"classes": 4}})
