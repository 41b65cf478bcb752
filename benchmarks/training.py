"""How many clips a second a training step takes, beside the same network in the authors' style.

    python benchmarks/training.py        # on the GPU where there is one; writes results/training.md

One step is forward pass, cross-entropy, backward pass and SGD with Nesterov momentum, of clips that are on the device.
The plain network is `plain_a2net.py`: eager, contiguous, the block in its textbook form; it has the same weights, and
the same logits are checked first. Each further line adds one thing to the line before. All lines take one step in turn,
round after round; clips a second are the median's, and "times" is the median over the rounds of the plain network's
time by this one's in the same round, which bears a busy machine better. The peak is that of a large matrix product in
the same type, measured here as well; the share is what a step's convolutions and matrix products make of it, counted
as each network computes them.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from plain_a2net import PlainA2Net
from report import circumstances, table, write
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from a2video.models import a2net_resnet50

NUM_CLASSES = 400
CPU_SIZES = [(2, 8, 112), (1, 8, 224)]  # clips, frames, pixels
GPU_SIZES = [(32, 8, 224)]


@dataclass(frozen=True)
class Line:
    """A row of the table: a network and how its step is computed."""

    name: str
    ours: bool
    bfloat16: bool = False
    channels_last: bool = False
    compiled: bool = False


def lines(device: torch.device, can_compile: bool) -> list[Line]:
    """From plain to everything; on a CPU in float32 only."""
    plain, ours = "plain network", "+ our block and network"
    if device.type == "cpu":
        rows = [Line(plain, False), Line(ours, True), Line("+ channels_last_3d", True, channels_last=True)]
        last = Line("+ compile", True, channels_last=True, compiled=True)
    else:
        rows = [
            Line(f"{plain}, float32", False),
            Line("+ bf16 autocast", False, True),
            Line(ours, True, True),
            Line("+ channels_last_3d", True, True, True),
        ]
        last = Line("+ compile", True, True, True, True)
    return [*rows, last] if can_compile else rows


def networks() -> dict[bool, nn.Module]:
    """Both networks with the same weights, by whether it is ours; the blocks take part, as after training."""
    torch.manual_seed(0)
    ours, plain = a2net_resnet50(NUM_CLASSES), PlainA2Net(NUM_CLASSES)
    for name, weight in ours.named_parameters():
        if name.endswith("attention.norm.weight"):
            nn.init.ones_(weight)
    plain.load_state_dict(ours.state_dict())
    return {True: ours, False: plain}


def check_equal(both: dict[bool, nn.Module]) -> float:
    """The largest difference of the logits in float64, by the largest logit, in training mode; 1e-9 is an error."""
    clips = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        theirs, ours = (copy.deepcopy(both[is_ours]).double().train()(clips) for is_ours in (False, True))
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    assert difference < 1e-9, difference
    return difference


def step_of(line: Line, network: nn.Module, clips: Tensor, labels: Tensor) -> Callable[[], object]:
    """A function that takes one step."""
    device, layout = clips.device, torch.channels_last_3d if line.channels_last else torch.contiguous_format
    network = copy.deepcopy(network).to(device, memory_format=layout).train()
    clips = clips.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4)
    forward: Any = torch.compile(network, dynamic=False) if line.compiled else network

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16) if line.bfloat16 else nullcontext():
            loss = cross_entropy(forward(clips), labels)
        loss.backward()
        optimizer.step()

    return step


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """By the clock, all work on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def flops(network: nn.Module, clips: Tensor) -> int:
    """Of forward and backward pass, counted from the operations; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        network.train()(clips).sum().backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of several."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    repeats = 20 if device.type == "cuda" else 1
    best = min(seconds(lambda: [a @ b for _ in range(repeats)], device) for _ in range(10)) / repeats
    return 2 * side**3 / best


def measure(both: dict[bool, nn.Module], size: tuple[int, int, int], device: torch.device, rounds: int) -> str:
    """The table of one size of batches."""
    batch, num_frames, side = size
    clips = torch.randn(batch, 3, num_frames, side, side, device=device)
    labels = torch.arange(batch, device=device) % NUM_CLASSES
    counted = {is_ours: batch * flops(copy.deepcopy(net).to(device), clips[:1]) for is_ours, net in both.items()}
    rows_of = lines(device, can_compile=shutil.which("g++") is not None)
    peaks = {dtype: peak(device, dtype) for dtype in {torch.bfloat16 if r.bfloat16 else torch.float32 for r in rows_of}}
    steps = [step_of(line, both[line.ours], clips, labels) for line in rows_of]
    for line, step in zip(rows_of, steps, strict=True):
        print(f"{line.name}: first step {seconds(step, device):.1f} s", flush=True)
        step()
    times = [[seconds(step, device) for step in steps] for _ in range(rounds)]
    rows = []
    for number, line in enumerate(rows_of):
        median = statistics.median(of_round[number] for of_round in times)
        ratio = statistics.median(of_round[0] / of_round[number] for of_round in times)
        share = counted[line.ours] / median / peaks[torch.bfloat16 if line.bfloat16 else torch.float32]
        rows.append(
            [line.name, f"{batch / median:.3g}", f"{ratio:.2f}", f"{counted[line.ours] / 1e9:.0f}", f"{share:.0%}"]
        )
    peak_text = ", ".join(f"{value / 1e12:.3g} T/s in {str(dtype)[6:]}" for dtype, value in peaks.items())
    title = f"## {batch} clips of {num_frames} x {side} x {side}, {device.type}"
    header = ["step", "clips/s", "times", "G operations", "share of peak"]
    return f"{title}\n\nMatrix peak: {peak_text}; {rounds} rounds.\n\n{table(header, rows)}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="steps of each line; default: 7 on a CPU, 30 on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="torch's, on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="clips of 8 x 224 x 224, instead of the default sizes; not written")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    sizes = CPU_SIZES if device.type == "cpu" else GPU_SIZES
    if options.batch:
        sizes = [(options.batch, 8, 224)]
    both = networks()
    difference = check_equal(both)
    rounds = options.rounds or (7 if device.type == "cpu" else 30)
    where = circumstances(["torch"])
    where += f"\n- {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"\n- {options.threads} threads"
    where += f"\n- largest difference of logits of the two networks in float64, relative: {difference:.1g}"
    parts = ["# Training steps", where, __doc__.split("\n\n", 1)[1].strip()]
    for size in sizes:  # what is measured is kept, should the next size not come to its end
        parts.append(measure(both, size, device, rounds))
        if options.batch:
            print(parts[-1])
        else:
            write("training" if device.type == "cpu" else "training_gpu", "\n\n".join(parts))


if __name__ == "__main__":
    main()
