"""What holds of every schedule, for a run of any length."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from a2video.scheduled_lr import ScheduledLR
from a2video.schedules import Cosine, EpochSteps, Plateau, Run, SampleSteps, Schedule, Steps

WARMUP = {"warmup_steps": st.integers(0, 60), "warmup_start": st.floats(0, 1)}
MILESTONES = st.lists(st.integers(0, 500), max_size=4).map(sorted)
GAMMA = st.floats(0.01, 1)


def schedules() -> st.SearchStrategy[Schedule]:
    stepped = [st.builds(kind, MILESTONES, GAMMA, **WARMUP) for kind in (Steps, EpochSteps, SampleSteps)]
    plateau = st.builds(Plateau, st.integers(1, 3), GAMMA, maximize=st.booleans(), **WARMUP)
    return st.one_of(st.builds(Cosine, **WARMUP), plateau, *stepped)


@st.composite
def runs(draw: Callable[[st.SearchStrategy], int]) -> Run:
    steps_per_epoch, samples = draw(st.integers(1, 50)), draw(st.integers(1, 64))
    last = draw(st.integers(1, samples))  # videos in the last update of an epoch
    base = draw(st.one_of(st.none(), st.integers(1, 128)))
    per_epoch = (steps_per_epoch - 1) * samples + last
    return Run(draw(st.integers(1, 400)), steps_per_epoch, samples, per_epoch, base, 1.0)


@examples
@given(schedules(), runs(), st.lists(st.floats(-10, 10), max_size=20))
def test_between_nothing_and_all(schedule: Schedule, run: Run, values: list[float]) -> None:
    for step in range(int(run.num_steps)):
        factor = schedule.factor(step, run, values)
        assert 0 <= factor <= 1
        assert math.isfinite(factor)


@examples
@given(schedules(), runs())
def test_up_in_the_warmup_and_never_up_after_it(schedule: Schedule, run: Run) -> None:
    factors = [schedule.factor(step, run) for step in range(int(run.num_steps))]
    decays = [schedule._decay(step, run, ()) for step in range(int(run.num_steps))]
    assert all(after <= before + 1e-12 for before, after in pairwise(decays))
    warmups = [factor / decay for factor, decay in zip(factors, decays, strict=True) if decay > 0]
    assert all(after >= before - 1e-9 for before, after in pairwise(warmups))
    for step, (factor, decay) in enumerate(zip(factors, decays, strict=True)):
        if not schedule.warmup_steps or run.position(step + 1) >= schedule.warmup_steps:
            assert factor == decay


@examples
@given(runs())
def test_positions_never_go_back(run: Run) -> None:
    positions = [run.position(step) for step in range(2 * run.steps_per_epoch + 2)]
    assert positions == sorted(positions)
    assert run.samples_before(run.steps_per_epoch) == run.samples_per_epoch


@examples
@given(schedules(), runs(), st.data())
def test_a_training_that_is_resumed_goes_on_at_the_same_rates(
    schedule: Schedule, run: Run, data: st.DataObject
) -> None:
    """Stopped after any step, with what is in a checkpoint, or brought to the step as Lightning's callback does."""
    num_steps = min(int(run.num_steps), 60)
    stop = data.draw(st.integers(0, num_steps))

    def made() -> tuple[torch.optim.Optimizer, ScheduledLR]:
        weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD([{"params": [weights[0]]}, {"params": [weights[1]], "lr": 0.02}], lr=0.1)
        return optimizer, ScheduledLR(optimizer, schedule, run)

    def train(optimizer: torch.optim.Optimizer, scheduled: ScheduledLR, steps: int) -> list[list[float]]:
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduled.step()
        return rates

    straight = train(*made(), num_steps)
    optimizer, scheduled = made()
    before = train(optimizer, scheduled, stop)
    resumed_optimizer, resumed = made()
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduled.state_dict())
    if data.draw(st.booleans()):
        resumed.go_to(stop)
    assert before + train(resumed_optimizer, resumed, num_steps - stop) == straight
