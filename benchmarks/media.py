"""The videos that loading is measured on, and libavcodec's own time on them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.packet import Packet

from a2video.data.metadata import VideoRecord
from a2video.data.packet_index import packets
from a2video.data.pyav_reader import SKIPPING_CODECS, PyAVReader
from a2video.data.transforms import short_side_size

SOURCES = Path(__file__).resolve().parents[2] / "shared" / "videos"
TEN_SECONDS = 300  # frames at 30 a second


class Video:
    """One file with what is known of it, and its packets in memory."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        with PyAVReader(path) as video:
            self.record: VideoRecord = video.record()
        self._container = av.open(str(path))
        stream = self._container.streams.video[0]
        self._codec = stream.codec_context
        self._codec.thread_type, self._codec.thread_count = "NONE", 1
        index = self.record.index
        self._packets = list(packets(self._container, stream, index.is_unpacked))
        self._place = {label: place for place, (label, _) in enumerate(self._packets)}

    def __len__(self) -> int:
        """The number of frames."""
        return self.record.index.num_frames

    def size(self, short_side: int) -> tuple[int, int]:
        """Height and width after resizing."""
        return short_side_size(self.record.height, self.record.width, short_side)

    def floor(self, indices: Sequence[int]) -> float:
        """Seconds that libavcodec needs for one clip, from the keyframe on, without what nobody needs."""
        index = self.record.index
        labels = index.labels[list(indices)].tolist()
        keyframe = index.keyframes[np.searchsorted(index.keyframes, indices[0], side="right") - 1]
        first, last = self._place[int(index.labels[keyframe])], max(self._place[label] for label in labels)
        can_skip = self._codec.name in SKIPPING_CODECS
        wanted = set(labels)
        return self._decode(
            (packet, can_skip and label not in wanted) for label, packet in self._packets[first : last + 1]
        )

    def decode_everything(self) -> float:
        """Seconds that libavcodec needs for all frames."""
        return self._decode((packet, False) for _, packet in self._packets)

    def _decode(self, parts: Iterable[tuple[Packet, bool]]) -> float:
        parts = list(parts)
        self._codec.flush_buffers()
        begin = time.process_time()
        for packet, can_skip in parts:
            self._codec.skip_frame = "NONREF" if can_skip else "DEFAULT"
            self._codec.decode(packet)
        self._codec.decode(None)
        return time.process_time() - begin


def videos(folder: Path) -> dict[str, Video]:
    """The files by a short name; those that are made from others are written to `folder`."""
    kinetics = SOURCES / "arm_wrestling.mp4"
    sparse, dense = {"g": "250"}, {"g": "12", "sc_threshold": "0"}
    kinds = {
        "kinetics": ("340x256 H.264, keyframes 0, 187, 230, 268", kinetics),
        "sparse": ("340x256 H.264, 10 s, GOP 250", encode(kinetics, folder / "sparse.mp4", sparse, (340, 256))),
        "dense": ("340x256 H.264, 10 s, GOP 12", encode(kinetics, folder / "dense.mp4", dense, (340, 256))),
        "large": ("960x720 H.264, 10 s, GOP 250", encode(kinetics, folder / "large.mp4", sparse, (960, 720))),
        "large dense": ("960x720 H.264, 10 s, GOP 12", encode(kinetics, folder / "large_dense.mp4", dense, (960, 720))),
        "ucf": ("320x240 XviD AVI, packed B pictures", SOURCES / "short_mpeg4.avi"),
    }
    return {key: Video(name, path) for key, (name, path) in kinds.items()}


def encode(source: Path, path: Path, options: dict[str, str], size: tuple[int, int]) -> Path:
    """Ten seconds of a video at 30 frames a second with other keyframes, in another (width, height)."""
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "20", **options})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        frames = list(inp.decode(video=0))
        for number in range(TEN_SECONDS):
            frame = frames[number % len(frames)].reformat(*size, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
