"""How many videos a second a video-level test takes, beside a pipeline that loads clip by clip.

    python benchmarks/testing.py        # a quarter of an hour; writes results/testing.md; the peer: see peers.py

The test list of surveillance_fights, a2net_tiny with random weights and the data options of its configuration, but
10 clips x 3 crops. "a2video": the loader of VideoDataModule, then score_steadily for each video with its extra centre
view, as `a2video test` does it. "pytorchvideo, get_clip": a video opened once with PyAV, each of its 10 clips
through EncodedVideo.get_clip, resized once for its three crops. "pytorchvideo, data set": its LabeledVideoDataset and
ConstantClipsPerVideoSampler with the transforms in the order of its tutorials. A clip of theirs lasts num_frames *
frame_stride / 30 seconds. Each video in turn with all, in one process, one thread, no workers; times are the process's
CPU time, which bears a busy machine better than the clock.
"""

from __future__ import annotations

import argparse
import logging
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peers import all_views, all_views_dataset
from report import circumstances, table, write
from torch import Tensor, nn
from torch.utils.data import DataLoader

from a2video.data.transforms import Preprocessing
from a2video.data.video_list import read_video_list
from a2video.datamodule import VideoDataModule
from a2video.inference.scoring import score_steadily
from a2video.models import a2net_resnet50, a2net_tiny
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer

FIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "surveillance_fights"
PREPROCESSING = Preprocessing(num_frames=8, frame_stride=4, short_side=72, crop_size=64, num_clips=10, num_crops=3)
NUM_VIEWS = PREPROCESSING.num_clips * PREPROCESSING.num_crops
FORWARD_SIZES = (1, 2, 4, 8, 16)


def data(num_workers: int = 0) -> VideoDataModule:
    """The videos of a test."""
    return VideoDataModule(PREPROCESSING, test_list=str(FIGHTS / "test.csv"), num_workers=num_workers)


def paths() -> tuple[str, ...]:
    """Of the videos."""
    return tuple(map(str, read_video_list(FIGHTS / "test.csv").paths))


def our_batches() -> Iterator[Tensor]:
    """uint8 clips (31, 3, T, H, W) of each video, the extra centre view last."""
    module = data()
    module.setup("test")
    for batch in module.test_dataloader():
        yield batch["clips"].flatten(0, 1)


def get_clip_batches() -> Iterator[Tensor]:
    """Normalized clips (30, 3, T, H, W) of each video."""
    for path in paths():
        yield all_views(path, PREPROCESSING)


def dataset_batches() -> Iterator[Tensor]:
    """Likewise."""
    for batch in DataLoader(all_views_dataset(paths(), PREPROCESSING), NUM_VIEWS):
        yield batch["video"]


def our_scores(network: nn.Module, clips: Tensor) -> Tensor:
    """Probabilities of a video."""
    return score_steadily(network, PREPROCESSING, clips, 16)[:NUM_VIEWS].softmax(1).mean(0)


def peer_scores(network: nn.Module, clips: Tensor) -> Tensor:
    """Likewise, of clips that are normalized."""
    return network(clips).softmax(1).mean(0)


SIDES = {
    "a2video": (our_batches, our_scores),
    "pytorchvideo, get_clip": (get_clip_batches, peer_scores),
    "pytorchvideo, data set": (dataset_batches, peer_scores),
}
NUM_VIDEOS = {"pytorchvideo, data set": 6}  # of 78: it takes long


def in_turn(network: nn.Module, names: Sequence[str]) -> str:
    """One process: loading (decoding, resizing, crops) and scoring."""
    batches = {name: SIDES[name][0]() for name in names}
    loading: dict[str, list[float]] = {name: [] for name in names}
    scoring: dict[str, list[float]] = {name: [] for name in names}
    probs: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in range(len(paths())):
        for name in sorted(names, reverse=bool(number % 2)):
            if number >= NUM_VIDEOS.get(name, number + 1):
                continue
            begin = time.process_time()
            clips = next(batches[name])
            loaded = time.process_time()
            probs[name].append(SIDES[name][1](network, clips))
            loading[name].append(loaded - begin)
            scoring[name].append(time.process_time() - loaded)
    whole = {name: [sum(both) for both in zip(loading[name], scoring[name], strict=True)] for name in names}
    rows = []
    for name in names:
        ratios = [theirs / own for theirs, own in zip(whole[name], whole["a2video"], strict=False)]
        gaps = [(theirs - own).abs().max().item() for theirs, own in zip(probs[name], probs["a2video"], strict=False)]
        times = [f"{statistics.median(times) * 1e3:.0f}" for times in (loading[name], scoring[name], whole[name])]
        rate = len(ratios) / sum(whole[name])
        ends = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, str(len(ratios)), *times, f"{rate:.2f}", ends, f"{max(gaps):.4f}"])
    times_ms = ("loading, ms", "scoring, ms", "both, ms")
    ratio = "time of a video to ours, median (all)"
    return table(["", "videos", *times_ms, "videos/CPU second", ratio, "largest difference in probability"], rows)


def whole_tests(network: nn.Module) -> str:
    """Trainer.test in full, with and without workers; CPU time of all processes, and the clock of a busy machine."""
    import lightning.pytorch as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    recognizer, num_videos, rows = Recognizer(network, Sgd(0.1)), len(paths()), []
    for num_workers in (0, 2):
        begin, used = time.perf_counter(), cpu_seconds()
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        trainer.test(recognizer, data(num_workers), verbose=False)
        wall, used = time.perf_counter() - begin, cpu_seconds() - used
        rows.append([str(num_workers), f"{used:.1f}", f"{num_videos / used:.2f}", f"{wall:.1f}"])
    return table(["workers", "CPU seconds", "videos/CPU second", "seconds by the clock"], rows)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def forwards() -> str:
    """CPU time of the network for each clip, by clips that go through it together (data.test_batch_size)."""
    rows = []
    for builder, side, num_rounds in ((a2net_tiny, 64, 5), (a2net_resnet50, 64, 1)):
        clips = {size: torch.rand(size, 3, 8, side, side) for size in FORWARD_SIZES}
        for name, channels_last, is_bf16 in (
            ("float32", False, False),
            ("float32, channels_last", True, False),
            ("bf16-mixed, channels_last", True, True),
        ):
            network = Recognizer(builder(num_classes=2), Sgd(0.1), channels_last=channels_last).network.eval()
            times: dict[int, list[float]] = {size: [] for size in FORWARD_SIZES}
            for _ in range(num_rounds):
                for size, batch in clips.items():
                    begin = time.process_time()
                    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                        network(batch)
                    times[size].append((time.process_time() - begin) / size)
            best = [f"{min(values) * 1e3:.1f}" for values in times.values()]
            rows.append([f"{builder.__name__}, 8 x {side} x {side}, {name}", *best])
            print(" | ".join(rows[-1]), flush=True)
    return table(["ms for each clip", *map(str, FORWARD_SIZES)], rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["in_turn", "whole_tests", "forwards", []])
    chosen = parser.parse_args().parts
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Recognizer(a2net_tiny(num_classes=2), Sgd(0.1), channels_last=True).network.eval()
    names, absent = list(SIDES), ""
    try:
        next(dataset_batches())
    except Exception as error:  # (whatever goes wrong in the peer, ours is measured)
        names = names[:1]
        absent = f"- not measured: pytorchvideo: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
    parts = {
        "in_turn": lambda: in_turn(network, names),
        "whole_tests": lambda: whole_tests(network),
        "forwards": forwards,
    }
    sections = []
    with torch.inference_mode():
        our_scores(network, next(our_batches()))  # whatever is done once
        for name in chosen or parts:
            sections.append(f"## {globals()[name].__doc__}\n\n{parts[name]()}")
            print(sections[-1], flush=True)
    where = circumstances(["torch", "av", "lightning", "pytorchvideo"])
    explanation = __doc__.split("\n\n", 2)[2].strip()
    text = "\n\n".join(part for part in ["# Testing", where, absent, explanation, *sections] if part)
    if chosen:
        print(text)
    else:
        write("testing", text)


if __name__ == "__main__":
    main()
