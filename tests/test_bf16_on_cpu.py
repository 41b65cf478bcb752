from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyData, batch_of, fit
from torch.nn.functional import cross_entropy

from a2video.bf16_on_cpu import gradient_is_wrong
from a2video.errors import InputError
from a2video.models import a2net_tiny
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer


def losses(is_bf16: bool) -> torch.Tensor:
    """Of 30 steps on one batch, without dropout."""
    torch.manual_seed(0)
    network = a2net_tiny(2)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    clips = torch.rand(4, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = cross_entropy(network(clips), torch.tensor([0, 1, 0, 1]))
        loss.backward()
        assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def test_thirty_steps_stay_finite_and_close_to_float32() -> None:
    in_bf16, expected = losses(True), losses(False)
    assert (in_bf16 - expected)[:10].abs().max() < 0.05
    assert expected[-1] < 0.1
    assert in_bf16[-1] < 0.1


def test_two_frames_are_refused_where_torch_is_wrong(tmp_path: Path) -> None:
    clips = torch.rand(2, 3, 4, 16, 16)  # conv4 sees two frames of four
    data = TinyData([batch_of(clips, [0, 1])])
    if not gradient_is_wrong():
        fit(Recognizer(a2net_tiny(2), Sgd(0.1)), data, tmp_path, max_epochs=1, precision="bf16-mixed")
        return
    fit(Recognizer(a2net_tiny(2), Sgd(0.1)), data, tmp_path, max_epochs=1)
    with pytest.raises(InputError, match=r"^trainer.precision: torch .* in bf16 on this CPU .* as \(2, 2, 2\) here"):
        fit(Recognizer(a2net_tiny(2), Sgd(0.1)), data, tmp_path, max_epochs=1, precision="bf16-mixed")
