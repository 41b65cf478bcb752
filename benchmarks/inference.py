"""How quickly a network computes a clip: as `a2video classify` does, exported, and in the style of its authors.

    python benchmarks/inference.py        # three minutes; writes results/inference.md

Clips go through the backends of VideoClassifier: uint8 in, logits out, so normalisation counts. One clip at a time,
each backend in turn in every round; "share" is the median over the rounds of the backend's time by that of the first
line in the same round: eager torch as the network trains, for a2net_resnet50 the network of `plain_a2net.py` with the
same weights. CPU time counts all threads. One thread bears a busy machine; of two, which must meet after each layer,
one waits while the machine does other work, torch's more than the others: such rows count only from an idle machine.
Networks have random weights with active attention blocks, and batch norms measured on blurred noise, so their results
are no trained network's: 16 and 8 bits show here what they gain in time; what they cost in accuracy is for
`a2video export --check LIST` to say.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from plain_a2net import PlainA2Net
from report import circumstances, table, write
from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.inference import converters
from a2video.inference.backends import Backend, TorchBackend
from a2video.inference.description import FILES, Description
from a2video.inference.onnx_backend import OnnxBackend
from a2video.inference.openvino_backend import OpenVinoBackend, openvino_core
from a2video.inference.weights import Trained
from a2video.models import a2net_resnet50, a2net_tiny
from a2video.models.faster_inference import prepare_for_inference

NETWORKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "a2net_resnet50": (a2net_resnet50, 224),
    "a2net_tiny": (a2net_tiny, 64),
}
NUM_CLASSES, NUM_FRAMES = 400, 8


def blurred_noise(num_clips: int, side: int) -> Tensor:
    """uint8 clips."""
    coarse = torch.rand(num_clips, 3, 4, 12, 12)
    return (nn.functional.interpolate(coarse, (NUM_FRAMES, side, side), mode="trilinear") * 255).byte()


def made(name: str) -> Trained:
    """A network whose activations have the usual size."""
    builder, side = NETWORKS[name]
    torch.manual_seed(0)
    network = builder(NUM_CLASSES)
    for key, parameter in network.named_parameters():
        if key.endswith("attention.norm.weight"):
            nn.init.constant_(parameter, 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None
    preprocessing = Preprocessing(num_frames=NUM_FRAMES, short_side=side, crop_size=side)
    with torch.no_grad():
        network.train()(preprocessing.normalize(blurred_noise(4, side)))
    return Trained(network.eval(), tuple(map(str, range(NUM_CLASSES))), preprocessing)


def backends(trained: Trained, folder: Path, num_threads: int) -> dict[str, Backend]:
    """All that compute the network."""
    onnx_file, side = folder / "float32.onnx", trained.preprocessing.crop_size
    if not onnx_file.exists():
        converters.write_onnx(trained, onnx_file)
        converters.write_openvino(onnx_file, folder / "float32.xml", is_half=False)
        converters.write_openvino(onnx_file, folder / "bfloat16.xml", is_half=True)
        converters.write_int8(onnx_file, folder / "int8.xml", blurred_noise(16, side).split(1))
    plain, ready = copy.deepcopy(trained.network), copy.deepcopy(trained.network)
    if len(trained.network.get_submodule("conv4")) == 6:  # ResNet-50
        plain = PlainA2Net(NUM_CLASSES).eval()
        plain.load_state_dict(trained.network.state_dict())
    prepare_for_inference(ready, torch.device("cpu"))
    loaded: dict[str, Backend] = {
        name: TorchBackend(network, trained.preprocessing, "cpu", num_threads)
        for name, network in (("eager torch", plain), ("torch, as classify", ready))
    }
    for path in (onnx_file, folder / "float32.xml", folder / "bfloat16.xml", folder / "int8.xml"):
        contents = {suffix: path.with_suffix(suffix).read_bytes() for suffix in FILES[path.suffix]}
        sums = {suffix: hashlib.sha256(content).hexdigest() for suffix, content in contents.items()}
        description = Description(None, trained.class_names, trained.preprocessing, path.stem, sums)
        if path == onnx_file:
            loaded["ONNX Runtime float32"] = OnnxBackend(path, contents[".onnx"], description, "cpu", num_threads)
        else:
            loaded[f"OpenVINO {path.stem}"] = OpenVinoBackend(path, contents, description, "cpu", num_threads)
    return loaded


def measure(name: str, num_threads: int, num_rounds: int, folder: Path) -> list[list[str]]:
    """A row for each backend."""
    torch.set_num_threads(num_threads)
    trained = made(name)
    loaded = backends(trained, folder, num_threads)
    clips = blurred_noise(1, trained.preprocessing.crop_size)
    logits = {key: backend(clips) for key, backend in loaded.items()}
    for backend in loaded.values():
        backend(clips)
    times: dict[str, list[tuple[float, float]]] = {key: [] for key in loaded}
    for number in range(num_rounds):
        for key in sorted(loaded, reverse=bool(number % 2)):
            cpu, clock = time.process_time(), time.perf_counter()
            loaded[key](clips)
            times[key].append((time.process_time() - cpu, time.perf_counter() - clock))
    rows = []
    for key, values in times.items():
        cpu, clock = zip(*values, strict=True)
        ratios = [
            statistics.median(b / a for a, b in zip(base, own, strict=True))
            for base, own in zip(zip(*times["eager torch"], strict=True), (cpu, clock), strict=True)
        ]
        gap = (logits[key].softmax(1) - logits["eager torch"].softmax(1)).abs().max().item()
        has_same = torch.equal(logits[key].topk(5).indices, logits["eager torch"].topk(5).indices)
        used = [f"{statistics.median(kind) * 1e3:.1f}" for kind in (cpu, clock)]
        ends = [f"{ratio:.2f}x" for ratio in ratios]
        load = f"load {os.getloadavg()[0]:.1f}"
        rows.append(
            [f"{name}, {num_threads} threads ({load})", key, *used, *ends, f"{gap:.0e}", "yes" if has_same else "no"]
        )
        print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="of a2net_resnet50; four times as many of a2net_tiny")
    options = parser.parse_args()
    rows = []
    for name in options.networks or NETWORKS:
        with TemporaryDirectory() as folder:
            for num_threads in options.threads:
                num_rounds = options.rounds * (4 if name == "a2net_tiny" else 1)
                rows += measure(name, num_threads, num_rounds, Path(folder))
    times = ("CPU ms", "clock ms", "share, CPU", "share, clock")
    text = table(["", "computed by", *times, "largest difference in probability", "same top-5"], rows)
    can = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    bf16 = "" if "BF16" in can else "This CPU has no bfloat16 instructions: such networks are computed in float32.\n\n"
    where = circumstances(["torch", "onnxruntime", "openvino", "nncf"])
    explanation = __doc__.split("\n\n", 2)[2].strip()
    text = f"# Inference\n\n{where}\n\n{explanation}\n\n{bf16}{text}"
    if options.networks:
        print(text)
    else:
        write("inference", text)


if __name__ == "__main__":
    main()
