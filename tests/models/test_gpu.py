"""The networks on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from a2video.models import DoubleAttention, a2net_tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("form", ["auto", "reassociated", "textbook"])
def test_block_equals_the_cpu_forward_and_backward(form: str) -> None:
    torch.manual_seed(0)
    block = DoubleAttention(16, form=form).double()
    torch.nn.init.ones_(block.norm.weight)
    results = []
    for device in ("cpu", "cuda"):
        block.to(device).zero_grad()
        x = torch.randn(2, 16, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
        x.requires_grad_()
        y = block(x)
        y.square().sum().backward()
        results.append([t.detach().cpu() for t in (y, x.grad, *(p.grad for p in block.parameters()))])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert torch.allclose(on_cpu, on_gpu, rtol=1e-9, atol=1e-9)


def test_network_in_bfloat16_and_channels_last() -> None:
    torch.manual_seed(0)
    network = a2net_tiny(5).eval()
    clips = torch.randn(4, 3, 8, 64, 64)
    expected = network(clips)
    network.to("cuda", memory_format=torch.channels_last_3d)
    with torch.autocast("cuda", torch.bfloat16):
        logits = network(clips.to("cuda", memory_format=torch.channels_last_3d))
    assert (logits.cpu().float() - expected).abs().max() <= 0.1 * expected.abs().max()
