"""How fast a training goes and what it waits for: clips a second, and the share of the time without a batch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from a2video.data.dataset import Batch
from a2video.data.watched_loader import WatchedLoader
from a2video.machine import share_cores, usable_cores

if TYPE_CHECKING:
    from a2video.datamodule import VideoDataModule

NUM_WARM_UP = 2  # steps left out: workers start, torch.compile compiles, cuDNN chooses
SHOW_EVERY_SECONDS = 1.0  # in the progress bar
MAX_WAIT = 0.2  # share of the time from which on there is advice
NUM_JUDGED = 200, 20  # steps after which, and at the end of an epoch at least, the share is judged


class WaitClock:
    """Adds up the time in which the device had no batch to work on.

    On a CPU that is the time in which the loader was asked and had not answered. On a GPU, which still works off what
    it was given when the loader is asked, it is the rest of that time: the GPU itself notes when it comes to the
    question and when to the answer. Its notes are read later, when they are there, so that nobody waits for them.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._notes: deque[tuple[Any, Any]] = deque()
        self._seconds = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a question to the loader."""
        if self._stream is None:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
        else:
            asked, answered = (_event() for _ in range(2))
            asked.record(self._stream)
            yield
            answered.record(self._stream)
            self._notes.append((asked, answered))

    def take(self) -> float:
        """Seconds that have become known since the last call."""
        while self._notes and self._notes[0][1].query():
            asked, answered = self._notes.popleft()
            self._seconds += asked.elapsed_time(answered) / 1000
        seconds, self._seconds = self._seconds, 0.0
        return seconds


@dataclass
class Totals:
    """Of some training steps: how many, their clips on this device, how long they took and waited."""

    num_steps: int = 0
    num_clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, num_clips: int, seconds: float, waited: float) -> None:
        """One more step."""
        self.num_steps += 1
        self.num_clips += num_clips
        self.seconds += seconds
        self.waited += waited

    @property
    def wait(self) -> float:
        """Share of the time, in [0, 1]."""
        return min(1.0, self.waited / self.seconds)


class Throughput(pl.Callback):
    """Shows and logs clips a second and the share of the time spent waiting for data, and advises if that is large.

    A step lasts from the end of the step before, or where validation or another epoch came in between from the request
    for its batch, to its own end; the first ones are left out. A GPU may still work on a step that has ended here, but
    only on a bounded number of them, since each loss is looked at: what one step's time lacks the next one's contains,
    and over many steps the sums are right without ever waiting for the GPU.

    Each process measures itself. The first one's clips are multiplied by the number of processes, which keep step with
    each other; what the others wait for shows in it as time, not as waiting.
    """

    def __init__(self) -> None:
        self.run, self.epoch, self._window = Totals(), Totals(), Totals()
        self._clock: WaitClock | None = None  # none where the loader is not ours
        self._start: float | None = None  # of the step that is under way
        self._num_seen = 0
        self._shown = 0.0
        self._has_advised = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to measure, also in an epoch that is resumed."""
        self._attach(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Another epoch; it may have another loader."""
        self._attach(trainer)
        self.epoch = Totals()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Counts the step, shows and logs."""
        now = time.perf_counter()
        start, self._start = self._start, now
        waited = self._clock.take() if self._clock else 0.0
        self._num_seen += 1
        if start is None or self._num_seen <= NUM_WARM_UP:
            return
        for totals in (self.run, self.epoch, self._window):
            totals.add(len(batch["clips"].flatten(0, 1)), now - start, waited)
        self._log(trainer, pl_module, now)
        if self.epoch.num_steps == NUM_JUDGED[0]:
            self._advise(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What follows is no training."""
        self._start = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judges the epoch; asks no other rank."""
        self._start = None
        if self.epoch.num_steps >= NUM_JUDGED[1]:
            self._advise(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how fast it was."""
        if trainer.is_global_zero and self.run.num_steps:
            waiting = f", {self.run.wait:.0%} of the time waiting for data" if self._clock else ""
            print(f"Speed: {_rate(self.run, trainer):.3g} clips/s in training{waiting}")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        assert self._clock is not None
        if self._start is None:
            self._start = time.perf_counter()
        with self._clock.waiting():
            yield

    def _attach(self, trainer: pl.Trainer) -> None:
        loader = trainer.train_dataloader
        if isinstance(loader, WatchedLoader):
            self._clock = self._clock or WaitClock(trainer.strategy.root_device)
            loader.while_waiting = self._asking

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, now: float) -> None:
        is_due = trainer._logger_connector.should_update_logs and not trainer.fit_loop._should_accumulate()
        if not is_due and now - self._shown < SHOW_EVERY_SECONDS:
            return
        self._shown = now
        rate, wait = _rate(self._window, trainer), self._window.wait
        pl_module.log("clips/s", round(rate, 1), prog_bar=True, logger=False, batch_size=1)
        if self._clock:
            pl_module.log("wait %", round(100 * wait, 1), prog_bar=True, logger=False, batch_size=1)
        if is_due:
            pl_module.log("train/clips_per_second", rate, batch_size=1)
            if self._clock:
                pl_module.log("train/data_wait", wait, batch_size=1)
            self._window = Totals()

    def _advise(self, trainer: pl.Trainer) -> None:
        """Once in a run: the progress bar goes on showing the share."""
        if self.epoch.wait <= MAX_WAIT or self._has_advised:
            return
        self._has_advised = True
        rank_zero_info(
            f"Waiting for data took {self.epoch.wait:.0%} of the time of {self.epoch.num_steps} steps of epoch "
            f"{trainer.current_epoch}. In order of help: {'; '.join(advice(trainer, self.epoch.wait))}"
        )


def advice(trainer: pl.Trainer, wait: float) -> list[str]:
    """What makes data come faster, the best first, where the share `wait` of the time goes by without."""
    data = cast("VideoDataModule", trainer.datamodule)  # type: ignore[attr-defined]
    num_processes = max(1, trainer.num_devices)  # on this machine
    usable = usable_cores()
    num_threads = torch.get_num_threads() if trainer.strategy.root_device.type == "cpu" else None
    num_wanted = math.ceil((data.num_workers or wait) / max(1 - wait, 0.01))  # without workers it waits while it reads
    num_workers, setting = share_cores(num_wanted, usable // num_processes, num_threads)
    if num_workers > data.num_workers:
        first = f"set {setting} ({usable} CPU cores can be used here)"
    else:
        first = f"get more CPU cores ({usable} can be used here, and data.num_workers {data.num_workers} uses them)"
    others = ["make the videos small once with data_prep/transcode.py"]
    if data.cache is None:
        others.append("give data.metadata the metadata.sqlite of data_prep/verify.py")
    return [first, *others, "lower data.preprocessing.short_side and crop_size"]


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _rate(totals: Totals, trainer: pl.Trainer) -> float:
    return trainer.world_size * totals.num_clips / totals.seconds
