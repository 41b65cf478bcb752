"""How many clips a second a training step takes, and where its time goes, beside the same network in another style.

    python benchmarks/network.py        # on the GPU where there is one; writes results/network.md

One step is forward pass, cross-entropy, backward pass and SGD with Nesterov momentum, of clips that are on the device.
The plain network is `plain_a2net.py`, in the style of the GloRe authors: eager, contiguous, the block in its textbook
form; it has the same weights, and the same logits are checked first. Each further line adds one thing to the line
before. "Without blocks" is our network without its five blocks, for what they cost; pytorchvideo's networks, with
non-local blocks where ours has double attention, are measured where they can be imported, which needs torchvision. All
lines take one step in turn, round after round; clips a second are the median's, and "share of time" is the median over
the rounds of this line's time by the plain network's in the same round, which bears a busy machine better. Memory is
what lies between the passes beside input and weights. The peak is that of a large matrix product in
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
from dataclasses import dataclass, replace
from typing import Any

import torch
from block import kept
from plain_a2net import PlainA2Net
from report import circumstances, table, write
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from a2video.models import a2net_resnet50, insert_blocks, resnet50
from a2video.models.nonlocal_block import non_local

NUM_CLASSES = 400
CPU_SIZES = [(2, 8, 112), (1, 8, 224)]  # clips, frames, pixels
GPU_SIZES = [(32, 8, 224)]
PEER = "pytorchvideo's slow_r50 with 5 non-local blocks"
PEER_PLACES = [(2, (0, 2)), (3, (0, 2, 4))]
LIKE_WITHOUT = {"cpu": "+ our block and network", "cuda": "+ compile"}  # the line that differs by the blocks alone
KINDS = {  # operations of torch by the kind of layer that they belong to
    "convolutions": ("conv", "linear"),
    "matrix products": ("mm", "addmm_", "addbmm"),
    "batch norms": ("batch_norm",),
    "softmaxes": ("softmax",),
    "ReLUs": ("clamp", "threshold", "relu"),
    "copies": ("copy_", "fill_", "zero_"),
    "sums": ("add", "sub", "mul", "sum"),
    "optimizer": ("_foreach", "sgd"),
}


@dataclass(frozen=True)
class Line:
    """A row of the table: a network and how its step is computed."""

    name: str
    network: str
    bfloat16: bool = False
    channels_last: bool = False
    compiled: bool = False


def lines(device: torch.device, can_compile: bool) -> list[Line]:
    """From plain to everything; on a CPU in float32 only."""
    plain, ours = "plain network", LIKE_WITHOUT["cpu"]
    if device.type == "cpu":
        rows = [Line(plain, "plain"), Line(ours, "ours"), Line("+ channels_last_3d", "ours", channels_last=True)]
        last = Line(LIKE_WITHOUT["cuda"], "ours", channels_last=True, compiled=True)
        others = [Line("our network without blocks", "without"), Line(PEER, PEER)]
    else:
        rows = [
            Line(f"{plain}, float32", "plain"),
            Line("+ bf16 autocast", "plain", True),
            Line(ours, "ours", True),
            Line("+ channels_last_3d", "ours", True, True),
        ]
        last = Line(LIKE_WITHOUT["cuda"], "ours", True, True, True)
        others = [Line("our network without blocks, all of these", "without", True, True, True), Line(PEER, PEER, True)]
    return [*rows, *([last] if can_compile else []), *others]


def networks() -> dict[str, nn.Module]:
    """The networks by name; "plain" and "ours" have the same weights, and the blocks take part, as after training."""
    torch.manual_seed(0)
    ours, plain = a2net_resnet50(NUM_CLASSES), PlainA2Net(NUM_CLASSES)
    for name, weight in ours.named_parameters():
        if name.endswith("attention.norm.weight"):
            nn.init.ones_(weight)
    plain.load_state_dict(ours.state_dict())
    made: dict[str, nn.Module] = {"plain": plain, "ours": ours, "without": resnet50(NUM_CLASSES)}
    try:
        from pytorchvideo.models.resnet import create_resnet
    except (ImportError, RuntimeError) as error:
        print(f"{PEER} is left out: {' '.join(str(error).split())[:100]}")
        return made
    peer = create_resnet(model_num_class=NUM_CLASSES, head_pool_kernel_size=(1, 1, 1), head_activation=None)
    places = {f"blocks.{stage}.res_blocks.{block}": non_local for stage, blocks in PEER_PLACES for block in blocks}
    return made | {PEER: insert_blocks(peer, places)}


def check_equal(made: dict[str, nn.Module]) -> float:
    """The largest difference of the logits in float64, by the largest logit, in training mode; 1e-9 is an error."""
    clips = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        theirs, ours = (copy.deepcopy(made[name]).double().train()(clips) for name in ("plain", "ours"))
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
    """Of forward and backward pass, counted from the operations of autograd's form; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(network).to("meta").train()(clips.to("meta")).sum().backward()
    return counter.get_total_flops()


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of several."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    repeats = 20 if device.type == "cuda" else 1
    best = min(seconds(lambda: [a @ b for _ in range(repeats)], device) for _ in range(10)) / repeats
    return 2 * side**3 / best


def kinds(step: Callable[[], object], device: torch.device) -> list[str]:
    """The share of each kind of layer in the time of a step, as torch's profiler counts it."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=list({ProfilerActivity.CPU, activity})) as recorded:
        step()
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in recorded.key_averages():
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        name = event.key.removeprefix("aten::")
        spent[next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")] += own
    return [f"{value / sum(spent.values()):.0%}" for value in spent.values()]


def measure(made: dict[str, nn.Module], size: tuple[int, int, int], device: torch.device, rounds: int) -> str:
    """The table of one size of batches."""
    batch, num_frames, side = size
    clips = torch.randn(batch, 3, num_frames, side, side, device=device)
    labels = torch.arange(batch, device=device) % NUM_CLASSES
    counted = {name: batch * flops(net, clips[:1]) for name, net in made.items()}
    rows_of = [line for line in lines(device, can_compile=shutil.which("g++") is not None) if line.network in made]
    peaks = {dtype: peak(device, dtype) for dtype in {torch.bfloat16 if r.bfloat16 else torch.float32 for r in rows_of}}
    steps = [step_of(line, made[line.network], clips, labels) for line in rows_of]
    for line, step in zip(rows_of, steps, strict=True):
        print(f"{line.name}: first step {seconds(step, device):.1f} s", flush=True)
        step()
    times = [[seconds(step, device) for step in steps] for _ in range(rounds)]
    rows = []
    for number, line in enumerate(rows_of):
        median = statistics.median(of_round[number] for of_round in times)
        ratio = statistics.median(of_round[number] / of_round[0] for of_round in times)
        dtype = torch.bfloat16 if line.bfloat16 else torch.float32
        share = counted[line.network] / median / peaks[dtype]
        of_line = copy.deepcopy(made[line.network]).to(device).train()
        rows.append(
            [
                line.name,
                f"{batch / median:.3g}",
                f"{ratio:.2f}",
                f"{counted[line.network] / 1e9:.0f}",
                f"{share:.0%}",
                "" if line.compiled else f"{kept(of_line, clips, dtype) / 2**20:.0f}",
            ]
        )
    last = next(number for number, line in enumerate(rows_of) if line.network == "without")
    with_blocks = rows_of.index(replace(rows_of[last], name=LIKE_WITHOUT[device.type], network="ours"))
    cost = statistics.median(of_round[with_blocks] / of_round[last] for of_round in times)
    peak_text = ", ".join(f"{value / 1e12:.3g} T/s in {str(dtype)[6:]}" for dtype, value in peaks.items())
    title = f"## {batch} clips of {num_frames} x {side} x {side}, {device.type}"
    about = (
        f"Matrix peak: {peak_text}; {rounds} rounds. With its blocks our network takes {cost:.2f}x the time without."
    )
    header = ["step", "clips/s", "share of time", "G operations", "share of peak", "kept MiB"]
    where = [[line.name, *kinds(step, device)] for line, step in zip(rows_of, steps, strict=True) if not line.compiled]
    parts = [title, about, table(header, rows), "Where the time goes:", table(["step", *KINDS, "other"], where)]
    return "\n\n".join(parts)


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
    made = networks()
    difference = check_equal(made)
    rounds = options.rounds or (7 if device.type == "cpu" else 30)
    where = circumstances(["torch"])
    where += f"\n- {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"\n- {options.threads} threads"
    where += f"\n- largest difference of logits of the two networks in float64, relative: {difference:.1g}"
    parts = ["# Networks", where, __doc__.split("\n\n", 1)[1].strip()]
    for size in sizes:  # what is measured is kept, should the next size not come to its end
        parts.append(measure(made, size, device, rounds))
        if options.batch:
            print(parts[-1])
        else:
            write("network" if device.type == "cpu" else "network_gpu", "\n\n".join(parts))


if __name__ == "__main__":
    main()
