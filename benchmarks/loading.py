"""How long it takes to load clips, beside the lower bound and beside what people use today.

    python benchmarks/loading.py        # half an hour; writes results/loading.md; peers: see peers.py

One thread each; times are the process's CPU time, which bears a busy machine better than the clock; medians over the
same clips, all methods in turn within one run, each the better of two. Only the data loaders are timed by the clock.
The floor is libavcodec alone with the packets in memory: from the keyframe to the last wanted frame, without the
pictures that nobody needs. "cached": the packet index comes from the metadata cache; "opening": it is made for this
clip. pytorchvideo hands out float32 frames, the others uint8.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from media import SOURCES, Video, videos
from peers import Load, importable_peers
from report import circumstances, table, write
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from a2video.data.dataset import VideoDataset, collate
from a2video.data.pyav_reader import PyAVReader
from a2video.data.samplers import RandomClips, UniformClips
from a2video.data.transforms import Cut, EvenCrops, RandomCrop
from a2video.data.video_list import VideoList
from a2video.data.views import load_views

NUM_CLIPS = 20
CLIPS = [  # video, num_frames, frame_stride, short side
    *[(video, t, s, side) for video in ("kinetics", "sparse") for t, s in ((8, 8), (16, 2)) for side in (128, 256)],
    *[("large", t, s, 256) for t, s in ((8, 8), (16, 2))],
    *[(video, t, s, 128) for video in ("dense", "ucf") for t, s in ((8, 8), (16, 2))],
    *[("large dense", t, s, 256) for t, s in ((8, 8), (16, 2))],
]


def ours(video: Video, indices: Sequence[int], short_side: int, is_cached: bool) -> Tensor:
    """Frames as load_views reads them."""
    size = video.size(short_side)
    cut = Cut((0, 0, video.record.height, video.record.width), size, (), 0)
    frames: list[Tensor] = []
    with PyAVReader(video.path, video.record if is_cached else None) as reader:
        reader.read(indices, lambda place, chunk: frames.append(cut.resize(chunk)))
    return torch.cat(frames)


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call, of all threads; NaN where it fails."""
    begin = time.process_time()
    try:
        function()
    except Exception:  # (a peer that cannot read this clip)
        return float("nan")
    return time.process_time() - begin


def ratio_cells(times: dict[str, list[float]], base: str) -> list[str]:
    """Medians in ms with their ratio to the median of `base`, and how often a method failed."""
    unit = statistics.median(times[base])
    cells = []
    for name, values in times.items():
        good = [value for value in values if value == value]
        failed = f", {len(values) - len(good)} failed" if len(good) < len(values) else ""
        ratio = "" if name == base else f" ({statistics.median(good) / unit:.2f}x)" if good else ""
        cells.append((f"{statistics.median(good) * 1e3:.1f}" if good else "-") + ratio + failed)
    return cells


def clips(all_videos: dict[str, Video], peers: dict[str, Load]) -> str:
    """Single clips."""
    rows = []
    for key, num_frames, frame_stride, short_side in CLIPS:
        video = all_videos[key]
        sampler, size = RandomClips(num_frames, frame_stride), video.size(short_side)
        times: dict[str, list[float]] = {name: [] for name in ("floor", "cached", "opening", *peers)}
        for number in range(NUM_CLIPS):
            indices = sampler(len(video), np.random.default_rng(number))[0].tolist()
            times["floor"].append(min(video.floor(indices), video.floor(indices)))
            calls: dict[str, Callable[[], object]] = {
                "cached": lambda v=video, i=indices, s=short_side: ours(v, i, s, True),
                "opening": lambda v=video, i=indices, s=short_side: ours(v, i, s, False),
                **{
                    name: lambda v=video, i=indices, load=load, size=size: load(v.path, i, v.record.fps, size)
                    for name, load in peers.items()
                },
            }
            for name, call in calls.items():
                times[name].append(min(cpu_seconds(call), cpu_seconds(call)))
        rows.append([f"{video.name}: {num_frames} x {frame_stride} to {short_side}", *ratio_cells(times, "floor")])
        print(" | ".join(rows[-1]), flush=True)
    header = ["clip", "floor, ms", *[f"{name}, ms (x floor)" for name in ("cached", "opening", *peers)]]
    return table(header, rows)


def views(all_videos: dict[str, Video], peers: dict[str, Load]) -> str:
    """All views of a test: 10 clips x 3 crops of 8 x 8."""
    rows, sampler, crops = [], UniformClips(8, 8, 10), EvenCrops(256, 224, 3)
    for key in ("kinetics", "sparse", "dense", "large"):
        video = all_videos[key]
        rng = np.random.default_rng(0)
        indices, size = sampler(len(video), rng).tolist(), video.size(256)
        times: dict[str, list[float]] = {}
        for _ in range(3):
            times.setdefault("all frames", []).append(video.decode_everything())
            own = cpu_seconds(lambda v=video, rng=rng: load_views(v.path, sampler, crops, rng))
            times.setdefault("a2video", []).append(own)
            for name, load in peers.items():
                parts = [
                    cpu_seconds(lambda i=i, load=load, v=video, size=size: load(v.path, i, v.record.fps, size))
                    for i in indices
                ]
                times.setdefault(name, []).append(sum(parts))
        rows.append([video.name, *ratio_cells(times, "all frames")])
        print(" | ".join(rows[-1]), flush=True)
    return table(["video", "decoding all, ms", *[f"{name}, ms (x)" for name in ("a2video, one pass", *peers)]], rows)


class PeerDataset(Dataset[Tensor]):
    """Random clips of a peer."""

    def __init__(self, load: Load, video: Video, num_clips: int) -> None:
        self.load, self.num_clips = load, num_clips
        self.path, self.fps, self.size, self.num_frames = video.path, video.record.fps, video.size(128), len(video)

    def __len__(self) -> int:
        """Clips."""
        return self.num_clips

    def __getitem__(self, index: int) -> Tensor:
        """One clip, a random crop of it."""
        rng = np.random.default_rng(index)
        frames = self.load(self.path, RandomClips(8, 8)(self.num_frames, rng)[0].tolist(), self.fps, self.size)
        top, left = rng.integers(0, 16, endpoint=True), rng.integers(0, self.size[1] - 112, endpoint=True)
        return frames[:, :, top : top + 112, left : left + 112].contiguous()


def loaders(all_videos: dict[str, Video], peers: dict[str, Load], num_clips: int = 96) -> str:
    """Clips a second out of a DataLoader with two workers, the first batch (start of the workers) not counted."""
    rows = []
    for key in ("sparse", "dense", "ucf"):
        video = all_videos[key]
        listed = VideoList("benchmark", (video.path,) * num_clips, (0,) * num_clips, ("x",))
        sets: dict[str, tuple[Dataset[object], object]] = {
            "a2video": (VideoDataset(listed, RandomClips(8, 8), RandomCrop((128, 128), 112, 0.5)), collate),
            **{name: (PeerDataset(load, video, num_clips), None) for name, load in peers.items()},
        }
        rates: dict[str, list[float]] = {}
        for _ in range(3):
            for name, (dataset, collate_fn) in sets.items():
                loader = DataLoader(dataset, 8, num_workers=2, collate_fn=collate_fn)
                try:
                    batches = iter(loader)
                    next(batches)
                    begin = time.perf_counter()
                    num_batches = sum(1 for _ in batches)
                    rates.setdefault(name, []).append(8 * num_batches / (time.perf_counter() - begin))
                except Exception:  # (a peer that cannot read this file)
                    rates.setdefault(name, []).append(float("nan"))
        base = statistics.median(rates["a2video"])
        medians = {name: statistics.median(values) for name, values in rates.items()}
        rows.append([video.name, *[f"{m:.0f} (ours {base / m:.2f}x)" for m in medians.values()]])
        print(" | ".join(rows[-1]), flush=True)
    return table(["clips 8 x 8 to 128, crop 112", *[f"{name}, clips/s" for name in ("a2video", *peers)]], rows)


def memory(all_videos: dict[str, Video], num_clips: int = 10_000) -> str:
    """Memory and open files while one process loads many clips."""
    sampler, transform = RandomClips(8, 8), RandomCrop((128, 160), 112, 0.5)
    rows = []
    for number in range(num_clips):
        video = all_videos[("dense", "ucf", "kinetics")[number % 20 // 9]]  # of 20 clips 9, 9 and 2
        load_views(video.path, sampler, transform, np.random.default_rng(number))
        if (number + 1) % (num_clips // 10) == 0:
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            rows.append([str(number + 1), f"{resident:.1f}", str(len(list(Path("/proc/self/fd").iterdir())))])
            print(" | ".join(rows[-1]), flush=True)
    growth = float(rows[-1][1]) / float(rows[1][1]) - 1
    return table(["clips", "resident MiB", "open files"], rows) + f"\n\nLast against second: {growth:+.1%}."


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"clips": clips, "views": views, "loaders": loaders, "memory": lambda all_videos, peers: memory(all_videos)}
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*parts, []],
        help="what to measure and print (default: everything, and write it down)",
    )
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        peers, absent = ({}, []) if options.without_peers else importable_peers(SOURCES / "arm_wrestling.mp4")
        all_videos = videos(Path(folder))
        chosen = options.parts or list(parts)
        sections = [
            f"## {parts[name].__doc__ or memory.__doc__}\n\n{parts[name](all_videos, peers)}" for name in chosen
        ]
    missing = "\n".join(f"- not measured: {line}" for line in absent)
    where = circumstances(["torch", "av", "decord", "torchcodec", "pytorchvideo"])
    text = "\n\n".join(["# Loading", where, missing, __doc__.split("\n\n", 2)[2].strip(), *sections])
    if options.parts or options.without_peers:
        print(text)
    else:
        write("loading", text)


if __name__ == "__main__":
    main()
