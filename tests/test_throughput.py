"""Clips a second and the share of waiting, by a clock that only reading and computing move."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import OneWeight, TinyData, fit

from a2video import throughput
from a2video.data.dataset import EpochSampler
from a2video.data.watched_loader import WatchedLoader
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer
from a2video.throughput import Throughput, WaitClock, advice


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Videos:
    """Videos of which each takes `seconds` to read, the first one of all a hundred more."""

    def __init__(self, clock: Clock, count: int, seconds: float) -> None:
        self.clock, self.count, self.seconds, self.start = clock, count, seconds, 100.0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.clock.now += self.seconds + self.start
        self.start = 0.0
        clips = torch.ones(1, 3, 1, 1, 1, dtype=torch.uint8)
        return {"video_index": index % self.count, "label": 0, "clips": clips, "errors": [], "views": []}


class Computing(OneWeight):
    """A pass takes two seconds in training, fifty in validation."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.clock.now += 2.0 if self.training else 50.0
        return super().forward(clips)


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: float, **options: Any
) -> tuple[pl.Trainer, Throughput]:
    """Two epochs of 24 steps with two clips each."""
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    data = TinyData.of([1.0])
    data.num_workers, data.cache = 0, None
    sampler = EpochSampler(48, shuffle=True)
    monkeypatch.setattr(data, "train_dataloader", lambda: WatchedLoader(Videos(clock, 48, reading), sampler, 2))
    module = Recognizer(Computing(clock), Sgd(lr=0.0))
    _, trainer = fit(module, data, tmp_path, max_epochs=2, log_every_n_steps=1, num_sanity_val_steps=0, **options)
    return trainer, next(callback for callback in trainer.callbacks if isinstance(callback, Throughput))


def test_rate_and_share_leave_out_the_start_and_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        trainer, callback = run(tmp_path, monkeypatch, reading=0.5)
    total = callback.run
    assert (total.num_steps, total.num_clips) == (46, 92)
    assert (total.seconds, total.waited) == (pytest.approx(46 * 3), pytest.approx(46))
    assert float(trainer.callback_metrics["train/clips_per_second"]) == pytest.approx(2 / 3)
    assert float(trainer.callback_metrics["train/data_wait"]) == pytest.approx(1 / 3)
    assert float(trainer.progress_bar_metrics["clips/s"]) == pytest.approx(0.7)
    assert float(trainer.progress_bar_metrics["wait %"]) == pytest.approx(33.3)
    assert "Speed: 0.667 clips/s in training, 33% of the time waiting for data" in capsys.readouterr().out
    said = [record.getMessage() for record in caplog.records if "Waiting" in record.getMessage()]
    assert len(said) == 1  # not in each epoch
    assert said[0].startswith("Waiting for data took 33% of the time of 22 steps of epoch 0. In order of help: ")


def test_no_advice_where_little_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        _, callback = run(tmp_path, monkeypatch, reading=0.2)
    assert callback.epoch.wait == pytest.approx(0.4 / 2.4)
    assert "Waiting for data" not in caplog.text


def test_accumulated_batches_are_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, callback = run(tmp_path, monkeypatch, reading=0.5, accumulate_grad_batches=4)
    assert callback.run.num_clips == 92
    assert float(trainer.callback_metrics["train/clips_per_second"]) == pytest.approx(2 / 3)


def test_advice_counts_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, _ = run(tmp_path, monkeypatch, reading=0.0)
    monkeypatch.setattr(throughput, "usable_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    first, *others = advice(trainer, 0.78)  # 3.5 times as long as it computes
    assert first == "set data.num_workers to 4 (8 CPU cores can be used here)"
    assert advice(trainer, 0.95)[0] == ("set data.num_workers to 7 and num_threads to 1 (8 CPU cores can be used here)")
    assert others == [
        "make the videos small once with data_prep/transcode.py",
        "give data.metadata the metadata.sqlite of data_prep/verify.py",
        "lower data.preprocessing.short_side and crop_size",
    ]
    trainer.datamodule.num_workers = 4
    assert advice(trainer, 0.21)[0] == "set data.num_workers to 6 (8 CPU cores can be used here)"
    trainer.datamodule.num_workers = 7
    assert advice(trainer, 0.5)[0] == "get more CPU cores (8 can be used here, and data.num_workers 7 uses them)"
    trainer.datamodule.num_workers = 0
    monkeypatch.setattr(throughput, "usable_cores", lambda: 2)
    assert advice(trainer, 0.3)[0] == ("set data.num_workers to 1 and num_threads to 1 (2 CPU cores can be used here)")


def test_a_gpu_waits_from_its_last_work_to_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes 5 s; the GPU has work for 4 of them the first time, for 6 the second time."""
    made: list[Event] = []

    class Event:
        def __init__(self) -> None:
            self.is_there = False
            made.append(self)

        def record(self, stream: str) -> None:
            assert stream == "of the network"

        def query(self) -> bool:
            return self.is_there

        def elapsed_time(self, other: Event) -> float:
            return other.milliseconds - self.milliseconds

    monkeypatch.setattr(throughput, "_event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "of the network")
    clock = WaitClock(torch.device("cuda"))
    for _ in range(2):
        with clock.waiting():
            pass
    assert clock.take() == 0  # nothing is known yet, and nothing was waited for
    for event, milliseconds in zip(made, (4000.0, 5000.0, 16000.0, 16000.0), strict=True):
        event.milliseconds = milliseconds  # when the GPU came to it
    made[0].is_there = made[1].is_there = True
    assert clock.take() == 1.0
    made[2].is_there = made[3].is_there = True
    assert clock.take() == 0.0
