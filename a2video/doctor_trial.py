"""One experiment tried out for a few batches, in a folder of its own: how fast, how much memory, how many workers."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from a2video.data.dataset import VideoDataset
from a2video.data.limits import GIB
from a2video.data.video_list import VideoList
from a2video.data.watched_loader import PREFETCH_FACTOR, WatchedLoader
from a2video.datamodule import VideoDataModule
from a2video.doctor_checks import Finding, Plan
from a2video.lightning_cli import UnrunCLI, command_line
from a2video.machine import Machine, share_cores

NUM_DECODED = 12  # videos of the training list that are decoded
NUM_STEPS = 3  # of each batch size; the first one, which allocates and compiles, is not timed
SHARE_OF_MEMORY = 0.8  # that a batch size may fill


class TrialCLI(UnrunCLI):
    """`fit` that stops before it trains.

    The process, the loggers and the folder are taken from the doctor; the rest is as configured.
    """

    scratch: str

    def before_instantiate_classes(self) -> None:
        """Nothing is written to the run's own folder, and no second process is started."""
        config = self.config["fit"]
        trainer = config.trainer
        names = ("default_root_dir", "devices", "num_nodes", "precision", "sync_batchnorm")
        self.asked = {name: trainer[name] for name in names}
        ours = {"default_root_dir": self.scratch, "devices": 1, "num_nodes": 1, "strategy": "auto", "logger": None}
        ours |= {"fast_dev_run": False, "num_sanity_val_steps": 0, "limit_val_batches": 0}
        for name, value in ours.items():
            trainer[name] = value
        config.ckpt_path = None
        self.save_config_callback = None
        super().before_instantiate_classes()


@dataclass
class Patient:
    """A configured experiment."""

    cli: TrialCLI
    folder: str
    devices: Any
    num_nodes: int
    precision: str
    num_threads: int
    compiles: bool
    sync_batchnorm: bool

    @property
    def data(self) -> VideoDataModule:
        """Its data module."""
        return self.cli.datamodule

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return bool(self.cli.trainer.strategy.root_device.type == "cuda")

    def sources(self) -> tuple[str, ...]:
        """Its lists and the folder of its videos."""
        data = self.data
        return tuple(path for path in (data.train_list, data.val_list, data.test_list, data.root) if path)

    def num_devices(self, machine: Machine) -> int:
        """Processes on this machine that it asks for."""
        if isinstance(self.devices, str) and "," in self.devices:  # "0,1" and "0," are lists of numbers
            return len([number for number in self.devices.split(",") if number.strip()])
        if isinstance(self.devices, (list, tuple)):
            return len(self.devices)
        number = int(self.devices) if str(self.devices).lstrip("-").isdecimal() else -1
        return number if number > 0 else max(1, len(machine.gpus) if self.on_gpu else 1)

    def plan(self, machine: Machine) -> Plan:
        """What it asks of the machine."""
        data, p = self.data, self.data.preprocessing
        clip_bytes = 3 * p.num_frames * p.crop_size**2
        num_train = data.batch_size * (data.train_sampler.num_clips or 1)
        num_test = max(data.batch_size, p.num_views)  # a video has all its views in one batch
        return Plan(
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            num_threads=self.num_threads,
            num_devices=self.num_devices(machine),
            batch_bytes=clip_bytes * max(num_train, num_test),
            num_in_flight=(PREFETCH_FACTOR + 1) * data.num_workers,
            on_gpu=self.on_gpu,
            precision=self.precision,
            compiles=self.compiles,
            shares_statistics=self.sync_batchnorm and self.num_devices(machine) * self.num_nodes > 1,
        )


def configured(options: Sequence[str], scratch: str) -> Patient:
    """What options of `a2video fit` describe.

    Raises:
        InputError: they are refused.
    """
    TrialCLI.scratch = scratch
    cli = command_line(TrialCLI, ["fit", *options])
    return Patient(
        cli=cli,
        folder=cli.asked["default_root_dir"],
        devices=cli.asked["devices"],
        num_nodes=cli.asked["num_nodes"],
        precision=str(cli.asked["precision"] or "32-true"),
        num_threads=cli.config["fit"].num_threads or torch.get_num_threads(),
        compiles=cli.config["fit"].model.compile,
        sync_batchnorm=bool(cli.asked["sync_batchnorm"]),
    )


def try_decoding(data: VideoDataModule, videos: VideoList) -> tuple[list[Finding], float]:
    """Reads some videos spread over the list as training does, in a worker; findings, and seconds for each video."""
    picked = sorted({index * len(videos) // NUM_DECODED for index in range(NUM_DECODED)})
    dataset = VideoDataset(videos, data.train_sampler, data.train_transform, data.seed, False, data.open_it)
    loader = WatchedLoader(dataset, picked, 1, num_workers=1, time_limit_seconds=data.time_limit_seconds)  # type: ignore[arg-type]
    times, errors = [], []
    try:
        for batch in loader:
            times.append(time.perf_counter())
            errors += batch["errors"]
    finally:
        loader.close()
    seconds = (times[-1] - times[0]) / max(1, len(times) - 1)
    findings = [Finding("error", f"a video of data.train_list cannot be read: {message}") for _, message in errors]
    text = f"{len(picked) - len(errors)} of {len(picked)} videos tried can be read"
    if len(times) > 1:
        text += f", {1000 * seconds:.0f} ms each in one worker"
    return [*findings, Finding("ok" if not errors else "note", text)], seconds


class _Enough(Exception):
    """Ends a trial."""


class _Timer(pl.Callback):
    """Notes seconds and loss of each step, and ends the training after a few."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self._start = _now(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *rest: Any) -> None:
        self.seconds.append(_now(trainer) - self._start)
        self.losses.append(float(outputs["loss"]))
        if len(self.seconds) == NUM_STEPS or trainer.is_last_batch:  # what follows an epoch is not tried
            raise _Enough


def try_steps(patient: Patient, machine: Machine, num_videos: int) -> tuple[list[Finding], float]:
    """A few real steps at half the batch size and at the whole; findings, and videos that the network takes a second.

    Leaves the data module changed.

    Args:
        patient: the experiment.
        machine: where it is tried.
        num_videos: of the training list that are present; all devices together need a batch each.
    """
    data, full = patient.data, patient.data.batch_size
    if num_videos // (num_devices := patient.num_devices(machine) * patient.num_nodes) < full:
        text = f"data.batch_size {full} exceeds the {num_videos} videos of data.train_list"
        return [Finding("error", text + f" shared by {num_devices} devices" * (num_devices > 1), "Lower it.")], 0.0
    data.val_list, data.allow_missing, data.num_workers = None, True, min(1, data.num_workers)
    measured: list[tuple[int, int]] = []  # batch size, bytes at most
    for batch_size in sorted({max(1, full // 2), full}):
        data.batch_size = batch_size
        try:
            timer, num_bytes = _steps(patient)
        except torch.cuda.OutOfMemoryError:
            advice = f"Set data.batch_size to {max(1, batch_size // 2)} or less, or use model.recompute."
            return [Finding("error", f"the GPU has too little memory for data.batch_size {batch_size}", advice)], 0.0
        except (RuntimeError, ValueError) as error:
            return [Finding("error", f"training fails: {' '.join(str(error).split())}")], 0.0
        measured.append((batch_size, num_bytes))
    seconds = min(timer.seconds[1:] or timer.seconds)
    speed = full * (data.train_sampler.num_clips or 1) / seconds
    text = (
        f"a step of {full} videos takes {seconds:.3g} s, {speed:.3g} clips/s, with {num_bytes / GIB:.2f} GiB of "
        f"{'the GPU' if patient.on_gpu else 'memory'} in precision {patient.precision}; "
        f"first loss {timer.losses[0]:.3f}"
    )
    return [Finding("ok", text), suggest_batch_size(measured, _limit(patient, machine))], full / seconds


def _steps(patient: Patient) -> tuple[_Timer, int]:
    """Trains a few steps; the times, and bytes of memory at most."""
    timer, trainer = _Timer(), patient.cli.instantiate_trainer()
    trainer.callbacks.append(timer)  # type: ignore[attr-defined]
    if patient.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
    else:
        _reset_peak()
    with suppress(_Enough):
        trainer.fit(patient.cli.model, datamodule=patient.data)
    if patient.on_gpu:
        return timer, torch.cuda.max_memory_allocated(trainer.strategy.root_device)
    return timer, _peak()


def suggest_batch_size(measured: Sequence[tuple[int, int]], limit: int) -> Finding:
    """The batch size that fills most of the memory, on the line through two measurements of (batch size, bytes)."""
    (small, less), (large, more) = measured[0], measured[-1]
    slope = (more - less) / (large - small) if large > small else 0.0
    if slope <= 0:
        return Finding("note", "how much memory a video takes could not be told from two batch sizes")
    most = math.floor(large + (SHARE_OF_MEMORY * limit - more) / slope)
    text = (
        f"each video of a batch takes {slope / 2**20:.0f} MiB: {SHARE_OF_MEMORY:.0%} of {limit / GIB:.0f} GiB would be"
    )
    if most < large:
        advice = f"Set data.batch_size to {max(1, most)}, or use model.recompute."
        return Finding("warning", f"{text} exceeded by data.batch_size {large}", advice)
    return Finding("ok", f"{text} filled by data.batch_size {most}")


def suggest_workers(busy: float, plan: Plan, num_cores: int) -> Finding:
    """A finding on data.num_workers, given how many workers the network of one device keeps busy."""
    needed = max(1, math.ceil(busy))
    num_workers, setting = share_cores(needed, num_cores // plan.num_devices, None if plan.on_gpu else plan.num_threads)
    text = f"the network keeps {busy:.2g} workers busy, data.num_workers is {plan.num_workers}"
    if plan.num_workers >= num_workers:
        return Finding("ok", text)
    if needed > num_workers:
        advice = f"Set {setting}, and make the videos smaller with data_prep/transcode.py."
        return Finding("warning", f"{text}, {num_workers} can run here: training waits for data", advice)
    return Finding("warning", f"{text}: training waits for data", f"Set {setting}.")


def _limit(patient: Patient, machine: Machine) -> int:
    return min(gpu.memory for gpu in machine.gpus) if patient.on_gpu else machine.memory


def _now(trainer: pl.Trainer) -> float:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """Bytes of memory of this process at most, since _reset_peak where the system can reset it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
