from __future__ import annotations

import pytest

from a2video.errors import InputError
from a2video.schedules import Cosine, Steps


def test_cosine_with_warmup() -> None:
    schedule = Cosine(warmup_steps=4)
    assert Cosine().factor(0, 100) == 1
    assert Cosine().factor(50, 100) == pytest.approx(0.5)
    assert Cosine().factor(100, 100) == pytest.approx(0)
    assert schedule.factor(0, 100) == pytest.approx(0.25)
    assert schedule.factor(1, 1_000_000) == pytest.approx(0.5)
    assert schedule.factor(25, 100) == Cosine().factor(25, 100) == pytest.approx(0.8535533905932737)


def test_steps_of_the_papers_ablation() -> None:
    schedule = Steps([20_000, 30_000])
    factors = [schedule.factor(step, 37_000) for step in (0, 19_999, 20_000, 29_999, 30_000, 36_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Steps([5], gamma=0.5, warmup_steps=10).factor(5, 100) == pytest.approx(0.6 * 0.5)


def test_wrong_numbers() -> None:
    with pytest.raises(InputError, match="ascend"):
        Steps([3, 2])
    with pytest.raises(InputError, match="warmup_steps must be at least 0, got -1"):
        Cosine(-1)
