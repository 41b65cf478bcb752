from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import OneWeight, TinyData, fit
from torch import nn

from a2video.errors import InputError
from a2video.models import a2net_tiny
from a2video.optimizers import AdamW, OptimizerBuilder, Sgd
from a2video.recognizer import Recognizer


def network() -> nn.Sequential:
    parts = nn.Sequential()
    parts.add_module("conv", nn.Conv3d(1, 1, 1))
    parts.add_module("bn", nn.BatchNorm3d(1))
    parts.add_module("fc", nn.Linear(1, 1))
    for weight in parts.parameters():
        nn.init.ones_(weight)
    return parts


def after_steps(builder: OptimizerBuilder, num_steps: int = 1) -> dict[str, float]:
    """All weights 1 and all gradients 2."""
    trained = network()
    optimizer = builder.build(trained)
    for _ in range(num_steps):
        for weight in trained.parameters():
            weight.grad = torch.full_like(weight, 2.0)
        optimizer.step()
    return {name: weight.item() for name, weight in trained.named_parameters()}


def test_two_steps_of_nesterov_with_decay() -> None:
    # d = 2 + 0.1 w; v = 0.9 v + d; w -= 0.5 (d + 0.9 v)
    # first: d = v = 2.1, w = 1 - 0.5 * 3.99 = -0.995; then d = 1.9005, v = 3.7905, w = -0.995 - 0.5 * 5.31195
    one = after_steps(Sgd(0.5, momentum=0.9, weight_decay=0.1))
    two = after_steps(Sgd(0.5, momentum=0.9, weight_decay=0.1), 2)
    assert set(one) == {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias"}
    assert list(one.values()) == pytest.approx([-0.995] * 6)
    assert list(two.values()) == pytest.approx([-3.650975] * 6)


def test_decay_kept_off_norms_and_biases() -> None:
    weights = after_steps(Sgd(0.5, momentum=0.0, weight_decay=0.1, decay_norms_and_biases=False))
    for name, weight in weights.items():
        assert weight == pytest.approx(-0.05 if name in ("conv.weight", "fc.weight") else 0.0), name


def test_factors_by_name() -> None:
    builder = Sgd(0.5, momentum=0.0, weight_decay=0.0, lr_factors={"*": 0.2, "fc": 1.0, "*.bias": 0.1})
    assert after_steps(builder) == pytest.approx(
        {
            "conv.weight": 0.8,
            "conv.bias": 0.9,
            "bn.weight": 0.8,
            "bn.bias": 0.9,
            "fc.weight": 0.0,
            "fc.bias": 0.9,
        }
    )


def test_adamw() -> None:
    # decay first: w (1 - 0.1 * 0.5) = 0.95; then the first step of Adam is lr in the direction of the gradient's sign
    assert after_steps(AdamW(0.1, weight_decay=0.5))["fc.weight"] == pytest.approx(0.85)
    without = after_steps(AdamW(0.1, weight_decay=0.5, decay_norms_and_biases=False))
    assert without["fc.bias"] == pytest.approx(0.9)


def test_one_group_where_all_are_alike_and_four_as_mfnet_and_glore_fine_tune() -> None:
    assert [len(group["params"]) for group in Sgd(0.1).groups(a2net_tiny(2))] == [len(list(a2net_tiny(2).parameters()))]
    builder = Sgd(0.01, decay_norms_and_biases=False, lr_factors={"*": 0.2, "fc": 1.0})
    groups = builder.groups(a2net_tiny(2))
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (0.002, 1e-4), (0.002, 0.0), (0.01, 1e-4), (0.01, 0.0)
    ]  # fmt: skip
    assert [len(group["params"]) for group in groups[2:]] == [1, 1]


def test_what_is_frozen_is_no_parameter_and_matches_nothing() -> None:
    frozen = network()
    frozen.get_submodule("conv").requires_grad_(False)
    assert sum(len(group["params"]) for group in Sgd(0.1).groups(frozen)) == 4
    with pytest.raises(InputError, match=r"lr_factors: 'conv' matches nothing; the parts to choose from are bn, fc$"):
        Sgd(0.1, lr_factors={"conv": 2.0}).groups(frozen)


def test_wrong_numbers() -> None:
    with pytest.raises(InputError, match=r"expected model.optimizer.lr >= 0 .*, got -0.1 and 0.0001"):
        Sgd(-0.1)
    with pytest.raises(InputError, match=r"momentum in \[0, 1\), got 1"):
        Sgd(0.1, momentum=1)
    with pytest.raises(InputError, match="betas"):
        AdamW(0.1, betas=(0.9, 1.0))
    with pytest.raises(InputError, match=r"at least 0, got -1 for 'fc'; .* use model.freeze"):
        Sgd(0.1, lr_factors={"fc": -1})


def test_two_steps_of_a_fit(tmp_path: Path) -> None:
    # gradients -x sigmoid(-w x): -0.5, then -0.4762678; v: -0.5, -0.9262678; w += 0.1 (0.95, 1.3099088)
    record, _ = fit(Recognizer(OneWeight(), Sgd(0.1, weight_decay=0)), TinyData.of([1, 1]), tmp_path, max_epochs=1)
    assert record.weights == pytest.approx([0.095, 0.2259909], abs=1e-7)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    # the mean of the gradients at w = 0 of x = 1 and x = 3 is -(0.5 + 1.5) / 2 = -1; the last batch is a step alone
    module = Recognizer(OneWeight(), Sgd(0.1, momentum=0, weight_decay=0))
    record, trainer = fit(module, TinyData.of([1, 3, 1]), tmp_path, max_epochs=1, accumulate_grad_batches=2)
    assert trainer.global_step == 2
    # the lone batch counts half: Lightning divides by 2 nevertheless; sigmoid(-0.1) = 0.4750208
    assert record.weights == pytest.approx([0.1, 0.1 + 0.1 * 0.4750208 / 2], abs=1e-7)


def test_clipped_gradients(tmp_path: Path) -> None:
    module = Recognizer(OneWeight(), Sgd(0.1, momentum=0, weight_decay=0))
    record, _ = fit(module, TinyData.of([1]), tmp_path, max_epochs=1, gradient_clip_val=0.25)
    assert record.weights == pytest.approx([0.025], abs=1e-6)  # -0.5 clipped to the norm 0.25


@pytest.mark.parametrize(("label", "smoothed"), [(0, 0.8730153), ([0.75, 0.25], 0.7930153)])
def test_label_smoothing(tmp_path: Path, label: object, smoothed: float) -> None:
    # w x = -0.4: log-probabilities -log(1 + e^0.4) = -0.91302 and -0.51302; smoothed by 0.2 the target (1, 0) is
    # (0.9, 0.1) and (0.75, 0.25) is (0.7, 0.3)
    network = OneWeight()
    network.w.data.fill_(-0.4)
    module = Recognizer(network, Sgd(0), label_smoothing=0.2)
    _, trainer = fit(module, TinyData.of([1], [label]), tmp_path, max_epochs=1, limit_val_batches=0)
    assert float(trainer.callback_metrics["train/epoch_loss"]) == pytest.approx(smoothed, abs=1e-6)


def test_smoothing_out_of_range() -> None:
    with pytest.raises(InputError, match=r"model.label_smoothing must be in \[0, 1\), got 1"):
        Recognizer(OneWeight(), Sgd(0.1), label_smoothing=1)
