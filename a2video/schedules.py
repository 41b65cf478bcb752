"""Learning-rate schedules as pure functions of the optimizer step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from a2video.errors import InputError


@dataclass(frozen=True)
class Run:
    """How long a training is.

    Attributes:
        num_steps: updates of the weights, infinity if it is stopped by hand; each takes
            trainer.accumulate_grad_batches batches of every device.
        steps_per_epoch: updates in an epoch.
        samples_per_step: videos of all devices in an update.
        samples_per_epoch: videos of all devices in an epoch; its last update may take fewer than the others.
        base_batch_size: the videos in an update that the schedule's own counts of updates are meant for, and the base
            learning rate; this run's own when None.
        lr_factor: what the base learning rate is multiplied by for that reason (the linear rule).
    """

    num_steps: float
    steps_per_epoch: int = 1
    samples_per_step: int = 1
    samples_per_epoch: int = 1
    base_batch_size: int | None = None
    lr_factor: float = 1.0

    def samples_before(self, step: int) -> int:
        """Videos seen before update `step`, counted from 0 like the steps."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.samples_per_epoch + steps * self.samples_per_step

    def position(self, step: int) -> float:
        """`step` in updates of base_batch_size videos: step 80 of 64 videos is 10 where 512 were meant."""
        return step if self.base_batch_size is None else self.samples_before(step) / self.base_batch_size


class Schedule(ABC):
    """A factor on the base learning rate for each optimizer step.

    What is counted in updates is counted in those of Run.base_batch_size videos.

    Args:
        warmup_steps: the factor climbs in equal steps over the first `warmup_steps` updates; with 4 the first four
            updates get 1/4, 2/4, 3/4 and 4/4 of the schedule's own value.
        warmup_start: what it climbs from, in [0, 1].
    """

    monitor: str | None = None  # the logged metric whose value of each finished epoch it is given

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.0) -> None:
        if warmup_steps < 0:
            raise InputError(f"model.schedule.warmup_steps must be at least 0, got {warmup_steps}")
        if not 0 <= warmup_start <= 1:
            raise InputError(f"model.schedule.warmup_start must be in [0, 1], got {warmup_start}")
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start

    def factor(self, step: int, run: Run, monitored: Sequence[float] = ()) -> float:
        """The factor of update `step` (from 0), after epochs whose monitored values are `monitored`."""
        warmup = min(1.0, run.position(step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return (self.warmup_start + (1 - self.warmup_start) * warmup) * self._decay(step, run, monitored)

    @abstractmethod
    def _decay(self, step: int, run: Run, monitored: Sequence[float]) -> float:
        """The factor without warm-up."""


class Cosine(Schedule):
    """Half a cosine from 1 at the first update towards 0 after the last."""

    def _decay(self, step: int, run: Run, monitored: Sequence[float]) -> float:
        if math.isinf(run.num_steps):
            raise InputError("model.schedule Cosine needs an end: set trainer.max_epochs or trainer.max_steps")
        return 0.5 * (1 + math.cos(math.pi * min(step, run.num_steps) / max(run.num_steps, 1)))


class Steps(Schedule):
    """Multiplied by `gamma` at each of `milestones`, counted in updates: the paper's ablation has [20000, 30000].

    EpochSteps and SampleSteps count otherwise.

    Args:
        milestones: ascending.
        gamma: the factor at each.
        warmup_steps: in updates, see Schedule.
        warmup_start: see Schedule.
    """

    def __init__(
        self, milestones: list[int], gamma: float = 0.1, warmup_steps: int = 0, warmup_start: float = 0.0
    ) -> None:
        super().__init__(warmup_steps, warmup_start)
        if sorted(milestones) != milestones:
            raise InputError(f"model.schedule.milestones must ascend, got {milestones}")
        self.milestones = milestones
        self.gamma = gamma

    def _position(self, step: int, run: Run) -> float:
        return run.position(step)

    def _decay(self, step: int, run: Run, monitored: Sequence[float]) -> float:
        position = self._position(step, run)
        return float(self.gamma ** sum(position >= milestone for milestone in self.milestones))


class EpochSteps(Steps):
    """Steps whose milestones are counted in epochs: [30, 60] is from the first update of the 31st epoch on."""

    def _position(self, step: int, run: Run) -> float:
        return step / run.steps_per_epoch


class SampleSteps(Steps):
    """Steps whose milestones are counted in videos seen by all devices, as MFNet's: the same for any batch size."""

    def _position(self, step: int, run: Run) -> float:
        return run.samples_before(step)


class Plateau(Schedule):
    """Multiplied by `gamma` when a metric stalls: "when training accuracy saturates" (paper, section 4.3).

    Args:
        patience: epochs in a row without a new best after which it is multiplied; then they are counted anew.
        gamma: the factor each time.
        monitor: a metric of each epoch: train/top1, train/top5, train/epoch_loss, or of the validation val/top1,
            val/top5 or val/loss; then only epochs with a validation count.
        maximize: whether larger is better; false for losses.
        min_gain: a new best exceeds the old one by more than this.
        warmup_steps: in updates, see Schedule.
        warmup_start: see Schedule.
    """

    def __init__(
        self,
        patience: int,
        gamma: float = 0.1,
        monitor: str = "train/top1",
        maximize: bool = True,
        min_gain: float = 0.0,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__(warmup_steps, warmup_start)
        if patience < 1 or min_gain < 0:
            raise InputError(
                f"expected model.schedule.patience >= 1 and model.schedule.min_gain >= 0, got {patience} and {min_gain}"
            )
        self.patience = patience
        self.gamma = gamma
        self.monitor = monitor
        self.maximize = maximize
        self.min_gain = min_gain

    def _decay(self, step: int, run: Run, monitored: Sequence[float]) -> float:
        best, num_stalled, num_drops = -math.inf, 0, 0
        for value in monitored if self.maximize else [-value for value in monitored]:
            if value > best + self.min_gain:
                best, num_stalled = value, 0
            else:
                num_stalled += 1
            if num_stalled == self.patience:
                num_drops, num_stalled = num_drops + 1, 0
        return float(self.gamma**num_drops)
