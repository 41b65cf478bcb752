"""How long it takes to load a clip, beside the lower bound and beside what people use today.

    python benchmarks/loading.py --out benchmarks/results     # about 15 minutes; see peers.py for the peers

Clips are decoded and resized on one thread; times are of the process's CPU (this bears a busy machine), medians over
the same clips, all methods in turn within one run. The floor is libavcodec alone with the packets in memory: from the
keyframe to the last wanted frame, without the pictures that nobody needs. "cached": the packet index is at hand.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from peers import importable_peers
from report import circumstances, table, write
from torch import Tensor

from a2video.data.metadata import VideoRecord
from a2video.data.packet_index import packets
from a2video.data.pyav_reader import SKIPPING_CODECS, PyAVReader
from a2video.data.samplers import RandomClips, UniformClips
from a2video.data.transforms import Cut, short_side_size

VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"
NUM_CLIPS = 24
PACKAGES = ["torch", "av", "decord", "torchcodec", "pytorchvideo"]


@dataclass(frozen=True)
class Work:
    """One row: a file and what is taken of it."""

    name: str
    path: Path
    num_frames: int
    frame_stride: int
    short_side: int


def works(folder: Path) -> list[Work]:
    """The files, those that are made from others included."""
    kinetics, ucf = VIDEOS / "arm_wrestling.mp4", VIDEOS / "short_mpeg4.avi"
    dense = encode(kinetics, folder / "gop12.mp4", {"g": "12", "keyint_min": "12", "sc_threshold": "0"})
    large = encode(kinetics, folder / "large.mp4", {"g": "250"}, (960, 720))
    large_dense = encode(kinetics, folder / "large_gop12.mp4", {"g": "12", "sc_threshold": "0"}, (960, 720))
    return [
        Work(f"{name}, {t} x {s} to {side}", path, t, s, side)
        for name, path, sides in (
            ("340x256 H.264, 4 keyframes", kinetics, (128, 256)),
            ("960x720 H.264, GOP 250", large, (256,)),
            ("340x256 H.264, GOP 12", dense, (128, 256)),
            ("960x720 H.264, GOP 12", large_dense, (256,)),
            ("320x240 XviD AVI, packed B", ucf, (128,)),
        )
        for side in sides
        for t, s in ((8, 8), (16, 2))
    ]


def encode(source: Path, path: Path, options: dict[str, str], size: tuple[int, int] | None = None) -> Path:
    """A copy of a video with other keyframes, in another (width, height)."""
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        old = inp.streams.video[0]
        new = out.add_stream("libx264", rate=old.average_rate, options={"crf": "20", **options})
        new.width, new.height = size or (old.width, old.height)
        new.pix_fmt = "yuv420p"
        for number, frame in enumerate(inp.decode(old)):
            frame = frame.reformat(new.width, new.height, "yuv420p")
            frame.pts, frame.time_base = number, 1 / Fraction(old.average_rate)
            out.mux(new.encode(frame))
        out.mux(new.encode(None))
    return path


class Floor:
    """libavcodec alone, packets in memory."""

    def __init__(self, path: Path, record: VideoRecord) -> None:
        self.index = record.index
        self.container = av.open(str(path))
        self.stream = self.container.streams.video[0]
        self.codec = self.stream.codec_context
        self.codec.thread_type, self.codec.thread_count = "NONE", 1
        self.packets = list(packets(self.container, self.stream, self.index.is_unpacked))

    def __call__(self, indices: Sequence[int]) -> float:
        """Seconds of CPU for frames of one clip."""
        wanted = set(self.index.labels[list(indices)].tolist())
        start = self.index.keyframes[np.searchsorted(self.index.keyframes, indices[0], side="right") - 1]
        first = next(n for n, (label, _) in enumerate(self.packets) if label == self.index.labels[start])
        last = max(n for n, (label, _) in enumerate(self.packets) if label in wanted)
        part = [(packet, label in wanted) for label, packet in self.packets[first : last + 1]]
        can_skip = self.codec.name in SKIPPING_CODECS
        self.codec.flush_buffers()
        begin = time.process_time()
        for packet, is_wanted in part:
            self.codec.skip_frame = "DEFAULT" if is_wanted or not can_skip else "NONREF"
            self.codec.decode(packet)
        self.codec.decode(None)
        return time.process_time() - begin


def ours(path: Path, indices: Sequence[int], cut: Cut, record: VideoRecord | None) -> Tensor:
    """A clip as load_views reads it."""
    with PyAVReader(path, record) as video:
        return video.map_frames(indices, cut)


def seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def measure(work: Work, peers: dict[str, Callable[..., Tensor]]) -> dict[str, list[float]]:
    """Seconds for each clip, methods in turn."""
    with PyAVReader(work.path) as video:
        record, fps = video.record(), video.fps
        num_available = len(video)
    size = short_side_size(record.height, record.width, work.short_side)
    cut = Cut((0, 0, record.height, record.width), size, ((0, 0),), max(size))
    floor = Floor(work.path, record)
    sampler = RandomClips(work.num_frames, work.frame_stride)
    times: dict[str, list[float]] = {}
    for clip in range(NUM_CLIPS):
        indices = sampler(num_available, np.random.default_rng(clip))[0].tolist()
        methods: dict[str, Callable[[], float]] = {
            "floor": lambda i=indices: floor(i),
            "cached": lambda i=indices: seconds(lambda: ours(work.path, i, cut, record)),
            "opening": lambda i=indices: seconds(lambda: ours(work.path, i, cut, None)),
        }
        for name, load in peers.items():
            methods[name] = lambda i=indices, load=load: seconds(lambda: load(work.path, i, fps, size))
        for name, method in methods.items():
            try:
                value = min(method(), method())
            except Exception:  # noqa: BLE001 (a peer that cannot read this clip)
                value = float("nan")
            times.setdefault(name, []).append(value)
    return times


def clips_table(all_works: Sequence[Work], peers: dict[str, Callable[..., Tensor]]) -> str:
    """The table of clips: milliseconds and ratios."""
    names = ["cached", "opening", *peers]
    rows = []
    for work in all_works:
        times = measure(work, peers)
        medians = {name: statistics.median(values) if values == values else float("nan") for name, values in times.items()}
        base = medians["floor"]
        row = [work.name, f"{base * 1e3:.1f}"]
        for name in names:
            failed = sum(value != value for value in times[name])
            good = [value for value in times[name] if value == value]
            middle = statistics.median(good) if good else float("nan")
            row.append(f"{middle * 1e3:.1f} ({middle / base:.2f})" + (f", {failed} failed" if failed else ""))
        rows.append(row)
        print(" | ".join(row), flush=True)
    return table(["clip", "floor, ms", *[f"{name}, ms (x floor)" for name in names]], rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only works whose name contains this; nothing is written")
    parser.add_argument("--no-peers", action="store_true", help="measure ours and the floor only; nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [work for work in works(Path(folder)) if options.only is None or options.only in work.name]
        peers, absent = importable_peers(VIDEOS / "arm_wrestling.mp4")
        peers = {} if options.no_peers else peers
        clips_table(chosen, peers)


if __name__ == "__main__":
    main()
