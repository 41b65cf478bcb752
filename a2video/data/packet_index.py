"""What a file's packets tell without decoding: the frames in order, their times, where decoding can start."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# Where a packet is one picture; the timed formats also store its presentation time.
TIMED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
COUNTABLE_FORMATS = TIMED_FORMATS | {"avi"}
COUNTABLE_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
PROGRESSIVE = {0, 1}  # AVFieldOrder: unknown, progressive; in the others a packet may be half a picture
MPEG4_PICTURE = b"\x00\x00\x01\xb6"  # starts every picture of MPEG-4 part 2; the next two bits are its type
MPEG4_BIDIRECTIONAL = 2
MAX_PLACEHOLDER_BYTES = 19  # MPEG-4 part 2: packets up to this size may hold no picture (FFmpeg's MAX_NVOP_SIZE)


def nothing() -> IntArray:
    """No numbers."""
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """Frames are numbered in presentation order.

    Attributes:
        num_frames: at least 1.
        labels: what a frame's packet carries as its time stamp when decoding, from which the frame is known when it
            comes out: its presentation time, or the packet's number where the file has no such times. Empty where
            packets do not tell frames apart: frames must be counted from the beginning.
        keyframes: numbers of the frames from which decoding can start, rising, the first one 0; empty without labels.
        positions: time stamps that seeking takes, one for each keyframe.
        times: presentation time of each frame in units of time_base, rising; empty if frames follow evenly.
        time_base: seconds.
        is_unpacked: packets are numbered after each has been given one picture (see `packets`).
    """

    num_frames: int
    labels: IntArray = field(default_factory=nothing)
    keyframes: IntArray = field(default_factory=nothing)
    positions: IntArray = field(default_factory=nothing)
    times: IntArray = field(default_factory=nothing)
    time_base: Fraction = Fraction(1)
    is_unpacked: bool = False

    def to_bytes(self) -> bytes:
        """Packs the index for a metadata cache: about a byte for each frame."""
        arrays = (self.labels, self.keyframes, self.positions, self.times)
        same_times = self.times is self.labels or np.array_equal(self.times, self.labels)
        head = {
            "frames": self.num_frames,
            "lengths": [len(array) for array in arrays[:3]] + [-1 if same_times else len(self.times)],
            "time_base": [self.time_base.numerator, self.time_base.denominator],
            "unpacked": self.is_unpacked,
        }
        body = np.concatenate([np.diff(array, prepend=0) for array in (arrays[:3] if same_times else arrays)])
        return zlib.compress(json.dumps(head).encode() + b"\n" + body.astype("<i8").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> PacketIndex:
        """The inverse of to_bytes."""
        head, body = zlib.decompress(data).split(b"\n", 1)
        values = json.loads(head)
        lengths = values["lengths"]
        ends = np.cumsum([max(0, length) for length in lengths])
        deltas = np.frombuffer(body, "<i8")
        labels, keyframes, positions, times = (np.cumsum(part) for part in np.split(deltas, ends[:-1]))
        return cls(
            num_frames=values["frames"],
            labels=labels,
            keyframes=keyframes,
            positions=positions,
            times=labels if lengths[3] < 0 else times,
            time_base=Fraction(*values["time_base"]),
            is_unpacked=values["unpacked"],
        )


def packets(
    container: InputContainer, stream: VideoStream, unpack: bool, number: int = 0
) -> Iterator[tuple[int | None, Packet[VideoStream]]]:
    """Reads on: yields each packet with its label.

    With `unpack`, MPEG-4 pictures that AVI files carry two in a packet are given packets of their own, and the
    labels are numbers of packets, from `number` up; the file's own times are not those of presentation there.
    """
    if not unpack:
        yield from ((packet.pts, packet) for packet in container.demux(stream) if packet.size)
        return
    unpacking = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    for packet in container.demux(stream):
        for picture in unpacking.filter(packet if packet.size else None):
            picture.pts = number
            yield number, picture
            number += 1


class UnsureError(Exception):
    """The packets of a file do not tell its frames."""


def scan(container: InputContainer, stream: VideoStream) -> tuple[PacketIndex | None, int]:
    """Reads all packets of a stream, from its beginning, without decoding.

    Returns:
        The index, or None where only decoding can tell the number of frames; and the number of packets read.

    Raises:
        av.FFmpegError: a packet cannot be read.
        ValueError: a packet is damaged or cut off.
    """
    codec, is_timed = stream.codec_context.name, container.format.name in TIMED_FORMATS
    unpack = codec == "mpeg4" and container.format.name == "avi"
    labels: list[int | None] = []  # of the packets that are to be shown, in the order of decoding
    keyframes: list[tuple[int | None, int | None]] = []  # (label, decoding time)
    are_bidirectional = []
    num_packets = 0
    is_frame_each = (
        container.format.name in COUNTABLE_FORMATS
        and codec in COUNTABLE_CODECS
        and stream.codec_context.field_order in PROGRESSIVE
    )
    for label, packet in packets(container, stream, unpack):
        if packet.is_corrupt:
            raise ValueError(f"packet {num_packets} is damaged or cut off")
        if num_packets == 0 and not packet.is_keyframe:
            is_frame_each = False  # decoders may drop what comes before the first keyframe
        if codec == "mpeg4" and is_frame_each:
            data = bytes(packet)
            is_frame_each = len(data) > MAX_PLACEHOLDER_BYTES and data.count(MPEG4_PICTURE) == 1
            are_bidirectional.append(is_frame_each and _picture_type(data) == MPEG4_BIDIRECTIONAL)
        if not packet.is_discard:
            labels.append(label)
        if packet.is_keyframe and (num_packets == 0 or not packet.is_discard):
            keyframes.append((label, label if is_timed else packet.dts))
        num_packets += 1
    if not is_frame_each or not labels:
        return None, num_packets
    try:
        shown = _timed_order(labels, keyframes, stream) if is_timed else _packet_order(are_bidirectional)
    except UnsureError:
        return (None if is_timed or unpack else PacketIndex(len(labels))), num_packets
    return with_keyframes(shown, keyframes, stream, is_timed), num_packets


def with_keyframes(
    shown: Sequence[int], keyframes: Sequence[tuple[int | None, int | None]], stream: VideoStream, is_timed: bool
) -> PacketIndex:
    """The index of frames with the labels `shown`, in the order of presentation."""
    labels = np.array(shown, np.int64)
    number_of = {label: number for number, label in enumerate(shown)}
    starts = sorted(
        (number_of[label], position) for label, position in keyframes if label in number_of and position is not None
    )
    if not starts or starts[0][0] != 0:
        starts = [(0, int(labels[0])), *starts]
    return PacketIndex(
        num_frames=len(labels),
        labels=labels,
        keyframes=np.array([number for number, _ in starts], np.int64),
        positions=np.array([position for _, position in starts], np.int64),
        times=labels if is_timed else nothing(),
        time_base=stream.time_base or Fraction(1),
        is_unpacked=not is_timed,
    )


def _picture_type(data: bytes) -> int:
    at = data.index(MPEG4_PICTURE) + len(MPEG4_PICTURE)
    return data[at] >> 6 if at < len(data) else -1


def _timed_order(
    labels: Sequence[int | None], keyframes: Sequence[tuple[int | None, int | None]], stream: VideoStream
) -> list[int]:
    """Presentation times in order, if they name frames: all known, different, none before the first keyframe."""
    known = sorted({label for label in labels if label is not None})
    are_decoding_times = stream.codec_context.has_b_frames and known == labels
    starts = [label for label, _ in keyframes if label is not None]
    if len(known) < len(labels) or are_decoding_times or not starts or min(starts) > known[0]:
        raise UnsureError
    return known


def _packet_order(are_bidirectional: Sequence[bool]) -> list[int]:
    """Numbers of MPEG-4 packets in the order of presentation: a picture others refer to is shown at the next such."""
    if not are_bidirectional or any(are_bidirectional[:2]):
        raise UnsureError  # another codec; or B pictures without the two that they lie between
    order, waiting = [], 0
    for number, is_bidirectional in enumerate(are_bidirectional[1:], start=1):
        if is_bidirectional:
            order.append(number)
        else:
            order.append(waiting)
            waiting = number
    return [*order, waiting]
