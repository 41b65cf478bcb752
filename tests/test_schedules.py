from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import OneWeight, TinyData, fit

from a2video.errors import InputError
from a2video.optimizers import AdamW, OptimizerBuilder, Sgd
from a2video.recognizer import Recognizer
from a2video.schedules import Cosine, EpochSteps, Plateau, Run, SampleSteps, Schedule, Steps


def test_cosine_with_warmup() -> None:
    schedule = Cosine(warmup_steps=4)
    assert Cosine().factor(0, Run(100)) == 1
    assert Cosine().factor(50, Run(100)) == pytest.approx(0.5)
    assert Cosine().factor(100, Run(100)) == pytest.approx(0)
    assert schedule.factor(0, Run(100)) == pytest.approx(0.25)
    assert schedule.factor(1, Run(1_000_000)) == pytest.approx(0.5)
    assert schedule.factor(25, Run(100)) == Cosine().factor(25, Run(100)) == pytest.approx(0.8535533905932737)


def test_warmup_from_a_tenth_as_the_glore_authors() -> None:
    schedule = Steps([], warmup_steps=1500, warmup_start=0.1)
    assert [schedule.factor(step, Run(9000)) for step in (749, 1499, 1500)] == pytest.approx([0.55, 1, 1])


def test_steps_of_the_papers_ablation() -> None:
    schedule = Steps([20_000, 30_000])
    factors = [schedule.factor(step, Run(37_000)) for step in (0, 19_999, 20_000, 29_999, 30_000, 36_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Steps([5], gamma=0.5, warmup_steps=10).factor(5, Run(100)) == pytest.approx(0.6 * 0.5)


def test_steps_in_epochs_and_in_samples() -> None:
    run = Run(math.inf, steps_per_epoch=3, samples_per_step=8, samples_per_epoch=20)  # 8, 8 and 4 samples
    assert [run.samples_before(step) for step in range(5)] == [0, 8, 16, 20, 28]
    assert [EpochSteps([1, 2]).factor(step, run) for step in (2, 3, 5, 6)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert [SampleSteps([20, 29]).factor(step, run) for step in (2, 3, 4, 5)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_counts_of_updates_follow_the_linear_rule() -> None:
    small = Run(1000, steps_per_epoch=100, samples_per_step=64, samples_per_epoch=6400, base_batch_size=512)
    schedule = Steps([10], warmup_steps=4)  # of 512 samples: 80 and 32 updates of 64
    factors = [schedule.factor(step, small) for step in (0, 15, 31, 79, 80)]
    assert factors == pytest.approx([1 / 32, 0.5, 1, 1, 0.1])
    large = Run(1000, steps_per_epoch=100, samples_per_step=1024, samples_per_epoch=102_400, base_batch_size=512)
    assert [schedule.factor(step, large) for step in (0, 1, 4, 5)] == pytest.approx([0.5, 1, 1, 0.1])
    assert Steps([], warmup_steps=1).factor(0, large) == 1
    assert Cosine().factor(500, small) == Cosine().factor(500, large) == pytest.approx(0.5)
    assert SampleSteps([640]).factor(9, small) == 1
    assert SampleSteps([640]).factor(10, small) == pytest.approx(0.1)


def test_positions_count_a_small_last_update_as_what_it_is() -> None:
    run = Run(math.inf, steps_per_epoch=3, samples_per_step=8, samples_per_epoch=20, base_batch_size=4)
    assert [run.position(step) for step in range(5)] == [0, 2, 4, 5, 7]
    assert [Run(9, 3, 8, 20).position(step) for step in range(5)] == [0, 1, 2, 3, 4]


def test_plateau() -> None:
    """Patience 2: the second epoch in a row without a new best; then it starts to count anew."""
    values = [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, 0.4, 0.4]
    factors = [Plateau(2).factor(0, Run(1), values[:epochs]) for epochs in range(9)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])
    losses = Plateau(1, gamma=0.5, monitor="train/epoch_loss", maximize=False, min_gain=0.1)
    assert [losses.factor(0, Run(1), [1.0, 0.95, 0.8, 0.75][:epochs]) for epochs in range(5)] == [1, 1, 0.5, 0.5, 0.25]


def test_wrong_numbers() -> None:
    with pytest.raises(InputError, match="ascend"):
        Steps([3, 2])
    with pytest.raises(InputError, match="warmup_steps must be at least 0, got -1"):
        Cosine(-1)
    with pytest.raises(InputError, match=r"warmup_start must be in \[0, 1\], got 2"):
        Cosine(1, 2)
    with pytest.raises(InputError, match=r"patience >= 1 and .* got 0 and 0"):
        Plateau(0)
    with pytest.raises(InputError, match=r"model.base_batch_size must be at least 1, got 0"):
        Recognizer(OneWeight(), Sgd(1.0), base_batch_size=0)
    with pytest.raises(InputError, match=r"needs an end: set trainer.max_epochs or trainer.max_steps"):
        Cosine().factor(0, Run(math.inf))


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        trainer.should_stop = trainer.global_step == self.step


def rates(schedule: Schedule | None, tmp_path: Path, base_batch_size: int | None = None, **options: Any) -> list[float]:
    """Of five batches an epoch, each with one video."""
    module = Recognizer(OneWeight(), Sgd(1.0, lr_factors={"w": 0.5}), schedule, base_batch_size)
    return fit(module, TinyData.of([1] * 5), tmp_path, **options)[0].rates


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Steps([2, 4], warmup_steps=2), [0.25, 0.5, 0.05, 0.05, 0.005, 0.005]),
        (EpochSteps([1]), [0.5, 0.5, 0.5, 0.05, 0.05, 0.05]),
        (SampleSteps([4, 7]), [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]),
        (Cosine(), [0.5, 0.4665064, 0.375, 0.25, 0.125, 0.03349365]),
    ],
)
def test_rates_of_a_fit_count_updates_not_batches(schedule: Schedule, expected: list[float], tmp_path: Path) -> None:
    """Two batches are an update, the fifth of an epoch one alone: updates start at sample 0, 2, 4, 5, 7 and 9."""
    assert rates(schedule, tmp_path, max_epochs=2, accumulate_grad_batches=2) == pytest.approx(expected)


def test_rates_of_a_fit_follow_the_linear_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half the clips: half the rate, and 2, 2 and 4 updates become 4, 4 and 8."""
    halved = [0.0625, 0.125, 0.1875, 0.25] + [0.025] * 4 + [0.0025] * 2
    schedule = Steps([2, 4], warmup_steps=2)
    assert rates(schedule, tmp_path, 2, max_epochs=2) == pytest.approx(halved)
    line = "Learning rate 1 for 2 clips an update -> 0.5 for 1 (1 clip x 1 device x 1 batch)\n"
    assert capsys.readouterr().out.count(line) == 1
    assert rates(None, tmp_path, 2, max_epochs=1) == [0.25] * 5
    # two of 1: the rate twice, and updates start at 0, 2, 4, 5, 7 and 9
    doubled = rates(Steps([4, 7]), tmp_path, 1, max_epochs=2, accumulate_grad_batches=2)
    assert doubled == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert "for 1 clips an update -> 2 for 2 (1 clip x 1 device x 2 batches)" in capsys.readouterr().out
    first = rates(schedule, tmp_path, 2, max_epochs=1)
    module = Recognizer(OneWeight(), Sgd(1.0, lr_factors={"w": 0.5}), schedule, 2)
    rest, _ = fit(module, TinyData.of([1] * 5), tmp_path, checkpoint=tmp_path / "last.ckpt", max_epochs=2)
    assert first + rest.rates == pytest.approx(halved)


@pytest.mark.parametrize(("accumulated", "expected"), [(2, [0.2, 0.2450166]), (4, [0.25])])
def test_a_clip_moves_the_weights_alike_in_a_small_last_update(
    accumulated: int, expected: list[float], tmp_path: Path
) -> None:
    """Clips 1, 3 and 1 at the rate 0.1 for each; the third alone has the gradient -sigmoid(-0.2) = -0.4501660.

    Of four batches an epoch has only three: 0.1 * (0.5 + 1.5 + 0.5).
    """
    module = Recognizer(OneWeight(), Sgd(0.1, momentum=0, weight_decay=0), base_batch_size=1)
    data = TinyData.of([1, 3, 1])
    record, _ = fit(module, data, tmp_path, max_epochs=1, accumulate_grad_batches=accumulated)
    assert record.weights == pytest.approx(expected, abs=1e-7)


def test_long_warmups_are_advised_against(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        rates(Steps([], warmup_steps=1), tmp_path, 2, max_epochs=2)
        assert "Warm-up" not in caplog.text
        rates(Steps([], warmup_steps=2), tmp_path, 2, max_epochs=1)
    assert "Warm-up takes 2 of 2 updates of 2 clips" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        fit(Recognizer(OneWeight(), Sgd(1.0), Steps([], warmup_steps=2)), TinyData.of([1] * 5), tmp_path, max_epochs=0)
    assert "Warm-up" not in caplog.text  # there are no updates at all


def test_a_run_without_end(tmp_path: Path) -> None:
    expected = [0.5, 0.5, 0.5, 0.5, 0.5, 0.05, 0.05]
    assert rates(EpochSteps([1]), tmp_path, max_epochs=-1, callbacks=[StopAt(7)]) == pytest.approx(expected)


def test_a_run_without_a_step(tmp_path: Path) -> None:
    assert rates(Cosine(warmup_steps=2), tmp_path, 2, max_epochs=1, limit_train_batches=0) == []


def test_plateau_falls_with_the_next_epoch_and_is_kept_in_checkpoints(tmp_path: Path) -> None:
    """All is right from the second epoch on: train/top1 is 1, 1, 1, ... and patience 2 gives up after three epochs."""
    plateau = Plateau(2)
    through = rates(plateau, tmp_path / "through", max_epochs=6)
    assert through == pytest.approx([0.5] * 15 + [0.05] * 10 + [0.005] * 5)
    first = rates(plateau, tmp_path, max_epochs=2)
    module = Recognizer(OneWeight(), Sgd(1.0, lr_factors={"w": 0.5}), plateau)
    rest, _ = fit(module, TinyData.of([1] * 5), tmp_path, checkpoint=tmp_path / "last.ckpt", max_epochs=6)
    assert first + rest.rates == through
    weights = [torch.load(p / "last.ckpt", weights_only=True)["state_dict"] for p in (tmp_path, tmp_path / "through")]
    assert torch.equal(weights[0]["network.w"], weights[1]["network.w"])


@pytest.mark.parametrize("schedule", [None, Steps([7]), Plateau(3)])
def test_a_resumed_run_follows_what_is_configured_now(schedule: Schedule | None, tmp_path: Path) -> None:
    """Five updates, then five at the rate 0.1; Steps([7]) counts those before."""
    rates(schedule, tmp_path, max_epochs=1)
    checkpoint = (tmp_path / "last.ckpt").rename(tmp_path / "first.ckpt")

    def resumed(optimizer: OptimizerBuilder, schedule: Schedule | None) -> tuple[list[float], dict[str, Any]]:
        module = Recognizer(OneWeight(), optimizer, schedule)
        record, trainer = fit(module, TinyData.of([1] * 5), tmp_path, (), checkpoint, max_epochs=2)
        return record.rates, trainer.optimizers[0].param_groups[0]

    slower, group = resumed(Sgd(0.1, momentum=0.5, weight_decay=0), None)
    assert slower == pytest.approx([0.1] * 5)
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0)
    assert resumed(Sgd(0.1), Steps([7]))[0] == pytest.approx([0.1] * 2 + [0.01] * 3)
    with pytest.raises(InputError, match=r"has dampening, lr, momentum, .* here it has betas, eps, lr, weight_decay"):
        resumed(AdamW(0.1), schedule)


def test_metrics_of_validation_count_in_epochs_that_validate(tmp_path: Path) -> None:
    """val/top1 is 1 after the epochs 2 and 4, so that patience 1 gives up after 4."""
    plateau = Plateau(1, monitor="val/top1")
    options = {"check_val_every_n_epoch": 2, "max_epochs": 6}
    through = rates(plateau, tmp_path / "through", **options)
    assert through == pytest.approx([0.5] * 20 + [0.05] * 10)
    first = rates(plateau, tmp_path, **{**options, "max_epochs": 4})  # saved before the end of the fourth
    module = Recognizer(OneWeight(), Sgd(1.0, lr_factors={"w": 0.5}), plateau)
    assert (
        first + fit(module, TinyData.of([1] * 5), tmp_path, (), tmp_path / "last.ckpt", **options)[0].rates == through
    )


def test_a_metric_that_no_epoch_has_is_refused_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metric 'train/acc', there are train/epoch_loss, train/top1.*val/top5"):
        rates(Plateau(1, monitor="train/acc"), tmp_path, max_epochs=1)
    with pytest.raises(InputError, match=r"monitor: val/loss needs validation: give data.val_list"):
        rates(Plateau(1, monitor="val/loss"), tmp_path, max_epochs=1, limit_val_batches=0)
    data = TinyData.of([1])
    data.val_list = None
    with pytest.raises(InputError, match=r"monitor: val/top1 needs validation: give data.val_list"):
        fit(Recognizer(OneWeight(), Sgd(1.0), Plateau(1, monitor="val/top1")), data, tmp_path, max_epochs=1)
    assert not list(tmp_path.iterdir())  # no epoch has ended
