"""Learning-rate schedules as pure functions of the optimiser step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from a2video.errors import InputError


class Schedule(ABC):
    """A factor on the base learning rate for each optimiser step.

    Args:
        warmup_steps: the factor climbs in equal steps over the first `warmup_steps` updates; with 4 the first four
            updates get 1/4, 2/4, 3/4 and 4/4 of the schedule's own value.
    """

    def __init__(self, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise InputError(f"warmup_steps must be at least 0, got {warmup_steps}")
        self.warmup_steps = warmup_steps

    def factor(self, step: int, num_steps: int) -> float:
        """The factor of update `step` (from 0) in a run of `num_steps` updates."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._decay(step, num_steps)

    @abstractmethod
    def _decay(self, step: int, num_steps: int) -> float:
        """The factor without warm-up."""


class Cosine(Schedule):
    """Half a cosine from 1 at the first update towards 0 after the last."""

    def _decay(self, step: int, num_steps: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(step, num_steps) / max(num_steps, 1)))


class Steps(Schedule):
    """Multiplied by `gamma` at each of `milestones`, counted in updates: the paper's ablation has [20000, 30000].

    Args:
        milestones: updates, ascending.
        gamma: the factor at each.
        warmup_steps: see Schedule.
    """

    def __init__(self, milestones: list[int], gamma: float = 0.1, warmup_steps: int = 0) -> None:
        super().__init__(warmup_steps)
        if sorted(milestones) != milestones:
            raise InputError(f"milestones must ascend, got {milestones}")
        self.milestones = milestones
        self.gamma = gamma

    def _decay(self, step: int, num_steps: int) -> float:
        return float(self.gamma ** sum(step >= milestone for milestone in self.milestones))
