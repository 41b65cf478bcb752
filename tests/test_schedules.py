from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import OneWeight, TinyData, fit

from a2video.errors import InputError
from a2video.optimizers import Sgd
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
    with pytest.raises(InputError, match=r"needs an end: set trainer.max_epochs or trainer.max_steps"):
        Cosine().factor(0, Run(math.inf))


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        trainer.should_stop = trainer.global_step == self.step


def rates(schedule: Schedule, tmp_path: Path, **options: Any) -> list[float]:
    """Of five batches an epoch, each with one video."""
    module = Recognizer(OneWeight(), Sgd(1.0, lr_factors={"w": 0.5}), schedule)
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


def test_a_run_without_end(tmp_path: Path) -> None:
    expected = [0.5, 0.5, 0.5, 0.5, 0.5, 0.05, 0.05]
    assert rates(EpochSteps([1]), tmp_path, max_epochs=-1, callbacks=[StopAt(7)]) == pytest.approx(expected)


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


def test_a_metric_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no metric 'train/acc', there are .*train/epoch_loss, .*train/top1.*val/top5"
    ):
        rates(Plateau(1, monitor="train/acc"), tmp_path, max_epochs=1)
