"""What this machine is: cores, memory, GPUs, versions, decoders, disks; asked so that nothing broken stops it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from a2video.data.limits import numbers, usable_memory


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, bytes of memory, and whether it computes in bf16 itself."""

    name: str
    memory: int
    has_bf16: bool


@dataclass(frozen=True)
class Machine:
    """Facts for the checks of a2video.doctor_checks.

    Attributes:
        system: operating system and architecture.
        python: version.
        num_cores: that this process may use, by affinity and container limits.
        memory: bytes that it may use.
        gpus: CUDA devices.
        cudnn: torch's number of its version, such as 91002; None without CUDA.
        modules: name -> version, or what importing it says; None where it is not installed.
        codecs: version of FFmpeg's codecs in PyAV.
        compiler: the C++ compiler that torch.compile would take.
        shared_memory: free bytes in /dev/shm; None where there is none.
        folder: where outputs go.
        disk_free: bytes there.
        write_error: why no file can be written there; empty where one can.
        file_systems: kinds of file system that the folder and the lists are on.
        bf16_is_wrong: see a2video.bf16_on_cpu.
    """

    system: str
    python: str
    num_cores: int
    memory: int
    gpus: tuple[Gpu, ...]
    cuda: str | None
    cudnn: int | None
    modules: dict[str, str | Exception | None]
    codecs: str
    compiler: str | None
    shared_memory: int | None
    folder: str
    disk_free: int
    write_error: str
    file_systems: dict[str, str]
    bf16_is_wrong: bool


MODULES = ("torch", "lightning", "torchmetrics", "torchvision", "av", "decord", "torchcodec", "pytorchvideo")


def this_machine(folder: str | Path, others: tuple[str, ...] = ()) -> Machine:
    """Looks around.

    Args:
        folder: where outputs will go; need not exist.
        others: more paths whose file systems matter.
    """
    modules = {name: try_import(name) for name in MODULES}
    gpus, cuda, cudnn = _gpus()
    place = existing(folder)
    return Machine(
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        python=platform.python_version(),
        num_cores=usable_cores(),
        memory=usable_memory(),
        gpus=gpus,
        cuda=cuda,
        cudnn=cudnn,
        modules=modules,
        codecs=_codecs(),
        compiler=next(filter(None, map(shutil.which, [os.environ.get("CXX", ""), "g++", "clang++", "cl"])), None),
        shared_memory=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None,
        folder=str(folder),
        disk_free=shutil.disk_usage(place).free,
        write_error=write_error(place),
        file_systems={str(path): file_system_of(existing(path)) for path in (folder, *others)},
        bf16_is_wrong=_bf16_is_wrong(),
    )


def try_import(name: str) -> str | Exception | None:
    """The module's version, None if it is not installed, or the error that importing it gives."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return None
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken installation throws
        return error
    return installed


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that the affinity and the CPU quota of the container leave, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    num_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, period = numbers(cgroups / "cpu.max", 2) or (
        *(numbers(cgroups / "cpu/cpu.cfs_quota_us", 1) or (-1,)),
        *(numbers(cgroups / "cpu/cpu.cfs_period_us", 1) or (1,)),
    )
    return max(1, min(num_cores, round(quota / period))) if quota > 0 else num_cores


def share_cores(num_wanted: int, num_cores: int, num_threads: int | None) -> tuple[int, str]:
    """How many loader workers of one process find a core, and how to set that: ("data.num_workers to 3").

    Args:
        num_wanted: as many would keep the network busy.
        num_cores: for this process.
        num_threads: torch's now where the network computes on the CPU, of which it keeps one; None on a GPU.

    Returns:
        At least 1 and at most `num_wanted`; options and values, with fewer threads where these would have no core.
    """
    num_workers = max(1, min(num_wanted, num_cores - (num_threads is not None)))
    setting, num_left = f"data.num_workers to {num_workers}", max(1, num_cores - num_workers)
    if num_threads is not None and num_threads > num_left:
        setting += f" and num_threads to {num_left}"
    return num_workers, setting


def existing(path: str | Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    absolute = Path(str(path).partition("#")[0]).absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def write_error(folder: Path) -> str:
    """Why no file can be written to the folder; empty where one can."""
    try:
        with TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def file_system_of(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of file system, such as ext4 or nfs4; empty where it cannot be told."""
    if not mounts.exists():
        return ""
    found = (Path("/"), "")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, kind, *_ = line.split()
        place = Path(mounted.replace("\\040", " "))
        if path.resolve().is_relative_to(place) and len(place.parts) >= len(found[0].parts):
            found = (place, kind)
    return found[1]


def _gpus() -> tuple[tuple[Gpu, ...], str | None, int | None]:
    try:
        import torch

        cuda = torch.version.cuda
        if not torch.cuda.is_available():
            return (), cuda, None
        devices: list[Any] = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        number: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return tuple(Gpu(device.name, device.total_memory, device.major >= 8) for device in devices), cuda, number
    except Exception:  # said by the check of torch itself
        return (), None, None


def _codecs() -> str:
    try:
        import av

        return f"libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    except Exception:  # said by the check of decoders
        return ""


def _bf16_is_wrong() -> bool:
    try:
        from a2video.bf16_on_cpu import gradient_is_wrong

        return gradient_is_wrong()
    except Exception:  # said by the check of torch itself
        return False
