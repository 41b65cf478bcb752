from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from a2video.models import a2net_resnet50_2d, a2net_tiny, resnet50_lite
from a2video.models.catalog import count_multiply_adds
from a2video.models.convolution import Conv3d
from a2video.models.faster_inference import prepare_for_inference


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "bias"),
    [((1, 1, 1), 1, False), ((1, 1, 1), (1, 2, 2), True), ((3, 3, 3), 1, True), ((1, 3, 3), (2, 2, 2), False)],
)
def test_convolutions_equal_torchs(
    layout: torch.memory_format, batch: int, kernel: tuple[int, ...], stride: int | tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    padding = tuple(size // 2 for size in kernel)
    ours = Conv3d(5, 7, kernel, stride, padding, bias=bias)
    theirs = nn.Conv3d(5, 7, kernel, stride, padding, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 5, 3, 6, 6)
    inputs = [tensor.detach().requires_grad_() for tensor in (x.contiguous(memory_format=layout), x.double())]
    outputs = [ours(inputs[0]), theirs(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    pairs = [
        outputs,
        [a.grad for a in inputs],
        *([p.grad, q.grad] for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)),
    ]
    for one, another in pairs:
        assert torch.allclose(one.double(), another, rtol=1e-4, atol=1e-4)


def test_slow_convolutions_are_not_taken() -> None:
    with torch.profiler.profile() as profile:
        Conv3d(4, 4, 3, padding=1)(torch.randn(1, 4, 2, 8, 8))
    assert "aten::slow_conv3d_forward" not in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize(
    ("builder", "shape"),
    [(a2net_tiny, (2, 3, 8, 32, 32)), (resnet50_lite, (1, 3, 4, 32, 32)), (a2net_resnet50_2d, (2, 3, 64, 64))],
)
def test_prepared_networks_are_the_same_function(builder: object, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = builder(4)  # type: ignore[operator]
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    x = torch.randn(shape)
    network.train()(torch.randn(4, *shape[1:]))
    network.eval()
    prepared = copy.deepcopy(network)
    for _ in range(2):  # the second time changes nothing
        prepare_for_inference(prepared, torch.device("cpu"))
    num_norms = [sum(isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d)) for m in n.modules()) for n in (network, prepared)]
    assert num_norms[1] < num_norms[0]
    with torch.inference_mode():
        expected, logits = network(x), prepared(x)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_hooks_keep_what_layers_gave() -> None:
    network, kept = a2net_tiny(4).eval(), []
    for name in ("conv3.1.bn1", "conv3.1.conv3"):
        network.get_submodule(name).register_forward_hook(lambda module, args, out: kept.append((out, out.clone())))
    network.get_submodule("conv3.1.bn1").register_full_backward_hook(lambda *_: None)
    network(torch.randn(1, 3, 8, 32, 32)).sum().backward()
    assert all(torch.equal(out, copied) for out, copied in kept)
    assert kept


def test_multiply_adds_do_not_depend_on_the_device() -> None:
    with torch.device("meta"):
        expected = count_multiply_adds(a2net_tiny(4), (4, 64, 64))
    assert count_multiply_adds(a2net_tiny(4), (4, 64, 64)) == expected == 40_894_976
