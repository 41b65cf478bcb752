"""What on a machine will be slow or wrong: one small function for each thing that has gone wrong for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from a2video.data.limits import GIB
from a2video.machine import Machine

Level = Literal["ok", "note", "warning", "error"]
MIB = 2**20
LEAST_DISK = 5 * GIB
LEAST_SHARED = 256 * MIB  # without a configuration; Docker gives 64 MiB
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs", "virtiofs")
SLOW_CUDNN = (90800, 91500)  # from, and fixed in; pytorch issues #163539, #166122 and #166643


@dataclass(frozen=True)
class Finding:
    """What a check found: a text, and one sentence of advice where there is something to do."""

    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Plan:
    """What a configuration asks of the machine.

    Attributes:
        batch_size: videos in a batch, on each device.
        num_workers: decoding processes, on each device.
        num_threads: torch's on the CPU.
        num_devices: processes that train on this machine.
        batch_bytes: of the largest batch of clips that travels from a worker.
        num_in_flight: batches that may be under way from the workers of one device.
        on_gpu: whether it trains on GPUs.
        precision: trainer.precision.
        compiles: model.compile.
        shares_statistics: whether several processes are to share those of batch norm.
    """

    batch_size: int
    num_workers: int
    num_threads: int
    num_devices: int
    batch_bytes: int
    num_in_flight: int
    on_gpu: bool
    precision: str
    compiles: bool
    shares_statistics: bool


def packages(machine: Machine, plan: Plan | None) -> Finding:
    """Whether what everything needs can be imported."""
    for name in ("torch", "lightning", "torchmetrics", "pytorchvideo"):
        if not isinstance(found := machine.modules[name], str):
            problem = "is not installed" if found is None else f"does not import: {_line(found)}"
            return Finding("error", f"{name} {problem}", "Install it anew: pip install -c constraints.txt .")
    versions = ", ".join(f"{name} {machine.modules[name]}" for name in ("torch", "lightning", "torchmetrics"))
    cuda = f", CUDA {machine.cuda}, cuDNN {machine.cudnn}" if machine.cuda else ", no CUDA in this build of torch"
    return Finding("ok", versions + cuda)


def torchvision(machine: Machine, plan: Plan | None) -> Finding:
    """Not needed, but lightning, torchmetrics and pytorchvideo import it where it is installed."""
    found = machine.modules["torchvision"]
    if isinstance(found, Exception):
        return Finding(
            "error",
            f"torchvision is installed but does not import: {_line(found)}",
            "Remove it (pip uninstall torchvision), since a2video does without, or install the one for this torch.",
        )
    return Finding("ok", "torchvision is not installed (not needed)" if found is None else f"torchvision {found}")


def decoders(machine: Machine, plan: Plan | None) -> Finding:
    """PyAV must be there; the others are by choice."""
    state = []
    for name in ("av", "decord", "torchcodec"):
        found = machine.modules[name]
        if name == "av" and not isinstance(found, str):
            problem = "is not installed" if found is None else f"does not import: {_line(found)}"
            return Finding("error", f"PyAV, the default decoder, {problem}", "Install it: pip install av.")
        state.append(f"{name} {'not installed' if found is None else found if isinstance(found, str) else 'broken'}")
    text = f"{', '.join(state)}; FFmpeg in PyAV: {machine.codecs}"
    broken = [name for name in ("decord", "torchcodec") if isinstance(machine.modules[name], Exception)]
    if broken:
        reason = _line(machine.modules[broken[0]])
        return Finding("note", f"{text}; {broken[0]} does not import: {reason}", f"Do not choose {broken[0]}'s reader.")
    return Finding("ok", text)


def gpus(machine: Machine, plan: Plan | None) -> Finding:
    """Whether there is one, and whether it has bf16."""
    if not machine.gpus:
        return Finding("note", "no GPU: training a large network will take very long", "Use small ones, or a GPU.")
    names = ", ".join(f"{gpu.name} ({gpu.memory / GIB:.0f} GiB)" for gpu in machine.gpus)
    if not all(gpu.has_bf16 for gpu in machine.gpus):
        return Finding("note", f"{names}; no bf16 of its own", "Use --trainer.precision 16-mixed, not bf16-mixed.")
    return Finding("ok", f"{names}, with bf16")


def cudnn(machine: Machine, plan: Plan | None) -> Finding:
    """cuDNN 9.8 to 9.14 has 3D convolutions in bf16 that are wrong for large inputs, or slow with much memory."""
    if machine.cudnn is None:
        return Finding("ok", "cuDNN is not used")
    name = cudnn_name(machine.cudnn)
    if not SLOW_CUDNN[0] <= machine.cudnn < SLOW_CUDNN[1]:
        return Finding("ok", f"cuDNN {name}")
    return Finding(
        "warning",
        f"3D convolutions in bf16 and fp16 are slow, take much memory, or are wrong for large inputs with cuDNN {name} "
        "(github.com/pytorch/pytorch issues 163539, 166122, 166643)",
        "Install cuDNN 9.15 or newer (pip install -U nvidia-cudnn-cu12, or -cu13), or torch 2.10 or newer.",
    )


def bf16_on_cpu(machine: Machine, plan: Plan | None) -> Finding | None:
    """Mixed precision saves nothing where the processor has no instructions for it."""
    if plan is None or plan.on_gpu or plan.precision.startswith(("32", "64")):
        return None
    wrong = ", and weight gradients over two frames are wrong with this torch" if machine.bf16_is_wrong else ""
    return Finding(
        "warning",
        f"trainer.precision {plan.precision} on a CPU is usually slower than float32, and less exact{wrong}",
        "Leave trainer.precision out where there is no GPU.",
    )


def sync_batchnorm(machine: Machine, plan: Plan | None) -> Finding | None:
    """Torch has it for GPUs only."""
    if plan is None or plan.on_gpu or not plan.shares_statistics:
        return None
    text = "trainer.sync_batchnorm needs GPUs, but the processes of this run compute on CPUs"
    return Finding("error", text, "Leave trainer.sync_batchnorm out where there is no GPU.")


def cores(machine: Machine, plan: Plan | None) -> Finding:
    """Workers and torch's threads share the cores."""
    text = f"{machine.num_cores} CPU cores, {machine.memory / GIB:.0f} GiB of memory can be used"
    if plan is None:
        return Finding("ok", text)
    workers = plan.num_workers * plan.num_devices
    if workers > machine.num_cores:
        return Finding(
            "warning",
            f"{text}, but {workers} workers want to decode (data.num_workers {plan.num_workers} x {plan.num_devices})",
            f"Set data.num_workers to at most {max(1, machine.num_cores // plan.num_devices)}.",
        )
    share = machine.num_cores // plan.num_devices
    num_threads = max(1, share - plan.num_workers)
    num_workers = max(1, share - num_threads)
    changes = ("num_threads", plan.num_threads, num_threads), ("data.num_workers", plan.num_workers, num_workers)
    settings = [f"{name} to {fewer}" for name, now, fewer in changes if now > fewer]
    if not plan.on_gpu and workers and settings:
        threads = plan.num_threads * plan.num_devices
        return Finding(
            "warning",
            f"{text}, but {threads} threads of torch and {workers} workers want to run at once",
            f"Set {' and '.join(settings)}.",
        )
    return Finding("ok", text)


def shared_memory(machine: Machine, plan: Plan | None) -> Finding | None:
    """Workers hand their batches over in /dev/shm."""
    if machine.shared_memory is None:
        return None
    needed, what = LEAST_SHARED, "workers hand their batches over there"
    if plan is not None:
        needed = plan.batch_bytes * plan.num_in_flight * plan.num_devices
        what = f"up to {_size(needed)} of batches can be under way from the workers"
    if machine.shared_memory < needed:
        return Finding(
            "error" if plan else "warning",
            f"/dev/shm has {_size(machine.shared_memory)} free, but {what}",
            "Give it more (in Docker --shm-size 8g or --ipc host), or lower data.num_workers or data.batch_size.",
        )
    return Finding("ok", f"/dev/shm has {_size(machine.shared_memory)} free; {what}")


def disk(machine: Machine, plan: Plan | None) -> Finding:
    """Checkpoints need room, and a folder that takes them."""
    if machine.write_error:
        text = f"{machine.folder} cannot be written to ({machine.write_error})"
        return Finding("error" if plan else "note", text, "Give another folder as trainer.default_root_dir.")
    text = f"{machine.disk_free / GIB:.1f} GiB free for {machine.folder}"
    if machine.disk_free < LEAST_DISK:
        return Finding("warning", text, "Make room: a checkpoint of a2net_resnet50 takes 0.4 GB, and three are kept.")
    return Finding("ok", text)


def file_systems(machine: Machine, plan: Plan | None) -> Finding:
    """Many small random reads are what network file systems are slow at."""
    remote = [f"{path} ({kind})" for path, kind in machine.file_systems.items() if kind.startswith(REMOTE)]
    if remote:
        advice = "Copy the videos to a local disk, or use more workers; checkpoints there are safe but slow."
        return Finding("note", f"not on a local disk: {', '.join(remote)}", advice)
    kinds = ", ".join(sorted({kind for kind in machine.file_systems.values() if kind})) or "of unknown kind"
    return Finding("ok", f"file systems: {kinds}")


def compiler(machine: Machine, plan: Plan | None) -> Finding:
    """torch.compile makes C++ for the CPU, and needs a compiler for the launchers of GPU kernels."""
    if machine.compiler is not None:
        return Finding("ok", f"C++ compiler {machine.compiler}")
    level: Level = "error" if plan is not None and plan.compiles else "note"
    return Finding(level, "no C++ compiler, which model.compile needs", "Install g++, or leave model.compile out.")


CHECKS: tuple[Callable[[Machine, Plan | None], Finding | None], ...] = (
    packages,
    torchvision,
    decoders,
    gpus,
    cudnn,
    bf16_on_cpu,
    sync_batchnorm,
    cores,
    shared_memory,
    disk,
    file_systems,
    compiler,
)


def check_machine(machine: Machine, plan: Plan | None = None) -> list[Finding]:
    """All findings, one of each check that applies."""
    findings = [check(machine, plan) for check in CHECKS]
    about = Finding("ok", f"{machine.system}, Python {machine.python}")
    return [about, *(finding for finding in findings if finding is not None)]


def cudnn_name(number: int) -> str:
    """91002 -> 9.10.2, and 8902 -> 8.9.2 as it was counted before version 9."""
    major = 10000 if number >= 90000 else 1000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.0f} MiB"


def _line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
