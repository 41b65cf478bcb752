from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from a2video.models import BUILDERS, CATALOG, DoubleAttention, a2net_resnet26, a2net_tiny, resnet26
from a2video.models.catalog import count_multiply_adds, count_parameters
from a2video.models.description import build
from a2video.models.resnet import ResNet, ResNet2d

# {builder: {"parameters": ..., "multiply_adds": {form: ...}}}, written by
#   python tests/models/test_resnet.py
# and then compared by eye with the paper's table.
GOLDEN = Path(__file__).with_name("counts.json")


def counts(name: str) -> dict:
    entry = next(entry for entry in CATALOG if entry.name == name)
    with torch.device("meta"):
        model = entry.builder(entry.num_classes)
    attends = any(isinstance(module, DoubleAttention) for module in model.modules())
    forms = ("textbook", "reassociated", "auto") if attends else ("auto",)
    return {
        "parameters": count_parameters(model),
        "multiply_adds": {form: count_multiply_adds(model, entry.size, form) for form in forms},
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_counts_have_not_changed(name: str) -> None:
    assert counts(name) == json.loads(GOLDEN.read_text())[name]


# Millions of parameters and 10^9 multiply-adds by paper.md, sections 2 and 3.
PAPER = {
    "resnet26": (7.044, 8.27),
    "resnet29": (7.621, 9.17),
    "resnet50": (33.42, 30.52),
    "a2net_resnet50": (40.8, 40.80),  # the textbook form
    "a2net_resnet50_2d": (33.0, None),  # 6.66 G here against 6.5 G: the paper's ResNet-50 is not torchvision's
    "resnet152_2d": (60.2, None),  # 11.51 G here against about 11.3 G, likewise
    "resnet50_lite": (27.99, 25.28),
}


@pytest.mark.parametrize("name", PAPER)
def test_golden_counts_match_the_paper_within_half_a_percent(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    millions, giga = PAPER[name]
    assert golden["parameters"] / 1e6 == pytest.approx(millions, rel=5e-3)
    if giga is not None:
        counted = golden["multiply_adds"]
        assert counted.get("textbook", counted["auto"]) / 1e9 == pytest.approx(giga, rel=5e-3)


@pytest.fixture(scope="module", params=list(BUILDERS))
def network(request: pytest.FixtureRequest) -> ResNet:
    torch.manual_seed(0)
    model = BUILDERS[request.param](5)
    assert isinstance(model, ResNet)
    return model


def clips(network: ResNet, batch: int = 2) -> torch.Tensor:
    size = (32, 40) if isinstance(network, ResNet2d) else (2, 32, 40)
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


class TestEveryBuilder:
    def test_gives_raw_logits_in_train_and_eval(self, network: ResNet) -> None:
        for mode in (True, False):
            logits = network.train(mode)(clips(network))
            assert logits.shape == (2, 5)
            assert torch.isfinite(logits).all()
            assert not torch.allclose(logits.sum(1), torch.ones(2))  # no softmax inside

    def test_trains_every_parameter_and_stays_finite(self, network: ResNet) -> None:
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for lr in (0.0, 1e-3, 1e-3):  # double attention starts as the identity: its inner weights move after a while
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(clips(network)), torch.tensor([0, 1])).backward()
            optimizer.step()
        unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # a bias before batch norm, and one that shifts all entries of a softmax alike, change nothing
        blind = ("attention.out.bias", "attention.theta.bias", "attention.conv_out.bias", "attention.conv_phi.bias")
        assert [n for n in unused if not n.endswith(blind)] == []
        assert all(torch.isfinite(p).all() for p in network.parameters())

    def test_can_be_rebuilt_from_its_description(self, network: ResNet) -> None:
        copy = build(network.description)
        copy.load_state_dict(network.state_dict())
        x = clips(network)
        assert torch.equal(copy.eval()(x), network.eval()(x))

    def test_a_sample_does_not_depend_on_its_batch_mates(self, network: ResNet) -> None:
        x = clips(network, 3)
        assert is_close(network.eval()(x)[1], network(x[1:2])[0])

    def test_takes_any_size_large_enough(self, network: ResNet) -> None:
        network.eval()
        for size in ((2, 32, 32), (5, 33, 47), (7, 32, 64)):
            assert network(torch.zeros(1, 3, *size[-network.dims :])).shape == (1, 5)
        too_small = torch.zeros(1, 3, *(4, 7, 64)[-network.dims :])
        with pytest.raises(ValueError, match=rf"at least .* in \({network.size_names}\), got .*7, 64\)"):
            network(too_small)
        with pytest.raises(ValueError, match=rf"shape \(B, 3, {network.size_names}\), got \(1, 1, "):
            network(torch.zeros(1, 1, *too_small.shape[2:]))
        with pytest.raises(ValueError, match=r"got \(3, 64\)"):
            network(torch.zeros(3, 64))

    @torch.no_grad()
    def test_bfloat16_is_close(self, network: ResNet) -> None:
        network.eval()
        x = clips(network)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x)
        assert is_close(logits, network(x), 0.1)  # 8 bits of mantissa, up to 150 layers


# One of each kind of block and skeleton; the others are longer or shorter.
KINDS = ["a2net_resnet26", "a2net_resnet50_2d", "nonlocal_resnet26", "resnet50_lite", "slow_resnet50", "a2net_tiny"]


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_compiles_and_exports(name: str) -> None:
    network = BUILDERS[name](5).eval()
    x, more = clips(network), clips(network, 3)
    compiled = torch.compile(network, backend="aot_eager")
    assert is_close(compiled(x), network(x))
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert is_close(exported(more), network(more))
    torch._dynamo.reset()


def is_close(logits: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())


def test_images_may_come_as_clips_of_one_frame() -> None:
    network = BUILDERS["a2net_resnet50_2d"](5).eval()
    images = torch.randn(2, 3, 32, 40)
    assert torch.equal(network(images), network(images[:, :, None]))


def test_attention_goes_where_it_is_asked_and_changes_nothing_at_first() -> None:
    torch.manual_seed(0)
    plain = resnet26(4).eval()
    attended = a2net_resnet26(4, places=["conv3.2", "conv4.1"]).eval()
    missing, unexpected = attended.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".attention.")[0] for name in missing} == {"conv3.2", "conv4.1"}
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(plain(x), attended(x))
    block = attended.get_submodule("conv4.1.attention")
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


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: counts(name) for name in BUILDERS}, indent=1) + "\n")
