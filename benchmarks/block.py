"""What a double attention block costs, beside its textbook form and the non-local block.

    python benchmarks/block.py            # ten minutes on a CPU; writes results/block.md
    python benchmarks/block.py --device cuda

Each block is in training, with its batch norm, and takes one turn in every round: forward pass without gradients, and
forward and backward pass. Times are medians, CPU time on a CPU; "times" is the median over the rounds of the textbook
form's time by this one's share of it in the same round, which bears a busy machine better. "Kept" is what lies between
the passes beside the block's input and weights, counted by torch's hooks for saved tensors; "peak" is the most memory
that one forward and backward pass allocates. Floors: the fewest multiply-adds known (the reassociated form) at the rate
of a large matrix product, and reading and writing inputs, outputs and their gradients once at the rate of a large copy.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from plain_a2net import Textbook
from report import circumstances, table, write
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from a2video.models import DoubleAttention
from a2video.models.nonlocal_block import non_local


@dataclass(frozen=True)
class Place:
    """Where a block stands, and its inner channels."""

    name: str
    channels: int
    inner: int
    size: tuple[int, int, int]


PLACES = [
    Place("conv3 of ResNet-50", 512, 256, (4, 28, 28)),
    Place("conv4 of ResNet-50", 1024, 512, (4, 14, 14)),
    Place("conv3 of ResNet-29", 256, 64, (8, 28, 28)),
    Place("conv4 of ResNet-29", 512, 128, (8, 14, 14)),
]
Run = Callable[[], object]


def blocks(place: Place, can_compile: bool) -> dict[str, nn.Module]:
    """The blocks; those of double attention have the same weights."""
    torch.manual_seed(0)
    textbook, ours = Textbook(place.channels, place.inner), DoubleAttention(place.channels, place.inner, place.inner)
    reassociated = DoubleAttention(place.channels, place.inner, place.inner, form="reassociated")
    nn.init.ones_(textbook.norm.weight)
    for block in (ours, reassociated):
        block.load_state_dict(textbook.state_dict())
    made = {
        "textbook": textbook,
        "ours": ours,
        "reassociated, by autograd": reassociated,
        "non-local (pytorchvideo)": non_local(place.channels, place.inner),
        "no block": nn.Identity(),
    }
    if can_compile:
        for name, block in (("textbook, compiled", textbook), ("ours, compiled", reassociated)):
            made[name] = torch.compile(block, dynamic=False)  # type: ignore[assignment]
    return made


def runs(block: nn.Module, x: Tensor, dtype: torch.dtype) -> dict[str, Run]:
    """Forward pass, and forward and backward pass."""
    leaf, grad = x.clone().requires_grad_(), torch.randn_like(x)
    is_half = dtype == torch.bfloat16

    def call(of: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype, enabled=is_half):
            return block(of)

    def forward() -> None:
        with torch.no_grad():
            call(x)

    def both() -> None:
        block.zero_grad(set_to_none=True)
        leaf.grad = None
        call(leaf).backward(grad)

    return {"forward": forward, "both": both}


def seconds(run: Run, device: torch.device) -> float:
    """CPU time of all threads, or the GPU's by the clock."""
    if device.type == "cpu":
        begin = time.process_time()
        run()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def kept(block: nn.Module, x: Tensor, dtype: torch.dtype) -> int:
    """Bytes between forward and backward pass, without input and weights."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = x.clone().requires_grad_()
    half = torch.autocast(x.device.type, dtype, enabled=dtype == torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), half:
        y = block(leaf)
    known = [leaf, *block.parameters(), *block.buffers()]
    for tensor in known:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    del y
    return sum(sizes.values())


def peak(run: Run, device: torch.device) -> int:
    """Bytes allocated at the same time during a run, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events: list[Any] = recorded.profiler.kineto_results.events() if recorded.profiler else []
    total = most = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most


def rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Multiply-adds a second of a large matrix product, and bytes a second of a large copy."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(64 * 2**20, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    product = min(seconds(lambda: a @ b, device) for _ in range(8))
    copy = min(seconds(lambda: target.copy_(source), device) for _ in range(8))
    return side**3 / product, 2 * source.numel() / copy


def measure(place: Place, batch: int, dtype: torch.dtype, device: torch.device, rounds: int, can_compile: bool) -> str:
    """The table of one place."""
    x = torch.randn(batch, place.channels, *place.size, device=device)
    made = {name: block.to(device).train() for name, block in blocks(place, can_compile).items()}
    work = {name: runs(block, x, dtype) for name, block in made.items()}
    for of_block in work.values():
        for run in of_block.values():
            run()
    times: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in work for kind in work[name]}
    for number in range(rounds):
        for name, kind in sorted(times, reverse=bool(number % 2)):
            times[name, kind].append(seconds(work[name][kind], device))
    rows = []
    base_kept = kept(made["textbook"], x, dtype)
    for name in work:
        cells = [name]
        for kind in ("forward", "both"):
            own = times[name, kind]
            share = statistics.median(a / b for a, b in zip(own, times["textbook", kind], strict=True))
            cells += [f"{statistics.median(own) * 1e3:.1f}", f"{share:.2f}x"]
        held = kept(made[name], x, dtype) if "compiled" not in name else None
        cells += [f"{held / 2**20:.1f}", f"{held / base_kept:.2f}x"] if held is not None else ["", ""]
        rows.append([*cells, f"{peak(work[name]['both'], device) / 2**20:.0f}"])
        print(" | ".join(rows[-1]), flush=True)
    c, n, positions = place.channels, place.inner, prod(place.size)
    macs = batch * (4 * c * n * positions + 2 * c * n * n)
    product, copy = rates(device, dtype)
    moved = 2 * x.numel() * (2 if dtype == torch.bfloat16 else 4)
    rows.append(
        ["floor: multiply-adds", f"{macs / product * 1e3:.1f}", "", f"{3 * macs / product * 1e3:.1f}", "", "", "", ""]
    )
    rows.append(["floor: memory", f"{moved / copy * 1e3:.1f}", "", f"{2 * moved / copy * 1e3:.1f}", "", "", "", ""])
    title = f"## {place.name}, {batch} x {c} x {' x '.join(map(str, place.size))}, c_m = c_n = {n}, {str(dtype)[6:]}"
    about = f"{product / 1e9:.0f} G multiply-adds/s, {copy / 1e9:.1f} GB/s copied; {rounds} rounds."
    header = ["", "forward ms", "of textbook", "with backward ms", "of textbook", "kept MiB", "of textbook", "peak MiB"]
    return f"{title}\n\n{about}\n\n{table(header, rows)}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch's, on a CPU")
    parser.add_argument("--rounds", type=int, help="default: 11 on a CPU, 50 on a GPU")
    parser.add_argument("--compile", action="store_true", help="on a CPU too")
    parser.add_argument("--batches", type=int, nargs="+", help="default: 2 on a CPU, 1, 8 and 32 on a GPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    is_gpu = device.type == "cuda"
    rounds = options.rounds or (50 if is_gpu else 11)
    can_compile = shutil.which("g++") is not None and (is_gpu or options.compile)
    where = circumstances(["torch", "pytorchvideo"])
    where += f"\n- {torch.cuda.get_device_name(device)}" if is_gpu else f"\n- {options.threads} threads"
    parts = ["# Double attention blocks", where, __doc__.split("\n\n", 2)[2].strip()]
    for place in PLACES:
        for batch in options.batches or ([1, 8, 32] if is_gpu else [2]):
            for dtype in (torch.float32, torch.bfloat16) if is_gpu else (torch.float32,):
                parts.append(measure(place, batch, dtype, device, rounds, can_compile))
    write("block_gpu" if is_gpu else "block", "\n\n".join(parts))


if __name__ == "__main__":
    main()
