"""What a file's packets tell without decoding: the frames in order, their times, where decoding can start."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

VERSION = 1  # of PacketIndex.to_bytes
# Where a packet is one picture; the timed formats also store its presentation time.
TIMED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
COUNTABLE_FORMATS = TIMED_FORMATS | {"avi"}
COUNTABLE_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
PROGRESSIVE = {0, 1}  # AVFieldOrder: unknown, progressive; in the others a packet may be half a picture
MPEG4_PICTURE = b"\x00\x00\x01\xb6"  # starts every picture of MPEG-4 part 2; the next two bits are its type
MPEG4_BIDIRECTIONAL = 2
H264_SLICES = range(1, 6)  # types of NAL units
MATROSKA_SEGMENT = b"\x18\x53\x80\x67"  # the element that holds everything but the first few bytes
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
        times: presentation time of each frame in units of time_base, rising; empty if they are not known.
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
            "version": VERSION,
            "frames": self.num_frames,
            "lengths": [len(array) for array in arrays[:3]] + [-1 if same_times else len(self.times)],
            "time_base": [self.time_base.numerator, self.time_base.denominator],
            "unpacked": self.is_unpacked,
        }
        body = np.concatenate([np.diff(array, prepend=0) for array in (arrays[:3] if same_times else arrays)])
        return zlib.compress(json.dumps(head).encode() + b"\n" + body.astype("<i8").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> PacketIndex:
        """The inverse of to_bytes; raises ValueError or zlib.error for anything else."""
        head, body = zlib.decompress(data).split(b"\n", 1)
        values = json.loads(head)
        if values.get("version") != VERSION:
            raise ValueError(f"a packet index of version {values.get('version')}, expected {VERSION}")
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
    decoding_times: list[int | None] = []  # of the same
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
            decoding_times.append(packet.dts)
        if packet.is_keyframe and (num_packets == 0 or not packet.is_discard):
            keyframes.append((label, label if is_timed else packet.dts))
        num_packets += 1
    if not is_frame_each or not labels:
        return None, num_packets
    try:
        shown = _timed_order(labels, keyframes, stream) if is_timed else _packet_order(are_bidirectional)
    except UnsureError:
        if is_timed or unpack:
            return None, num_packets
        return PacketIndex(len(labels), times=_rising(decoding_times), time_base=time_base_of(stream)), num_packets
    times = np.array(shown, np.int64) if is_timed else _rising(decoding_times)
    return with_keyframes(shown, keyframes, stream, times, is_timed), num_packets


def time_base_of(stream: VideoStream) -> Fraction:
    """Seconds in a unit of the stream's times."""
    return stream.time_base or Fraction(1)


def _rising(decoding_times: Sequence[int | None]) -> IntArray:
    """Presentation times of an AVI file: it shows a picture whenever one is due for decoding. Empty if unknown."""
    times = np.array([-1 if time is None else time for time in decoding_times], np.int64)
    return times if len(times) and times[0] >= 0 and (np.diff(times) > 0).all() else nothing()


def with_keyframes(
    shown: Sequence[int],
    keyframes: Sequence[tuple[int | None, int | None]],
    stream: VideoStream,
    times: IntArray,
    is_timed: bool,
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
        times=times,
        time_base=time_base_of(stream),
        is_unpacked=not is_timed,
    )


def may_be_referred_to(packet: Packet[VideoStream], extradata: bytes | None) -> bool:
    """Whether other pictures may refer to that of an H.264 packet, by the headers of its NAL units.

    True for whatever is unclear: damaged packets, and files whose `extradata` is not that of MP4 and Matroska.
    """
    if not extradata or len(extradata) < 7 or extradata[0] != 1:
        return True
    data, num_length_bytes = memoryview(packet), (extradata[4] & 3) + 1
    at, has_picture = 0, False
    while at + num_length_bytes < len(data):
        header = data[at + num_length_bytes]
        if header & 31 in H264_SLICES:
            if header >> 5:
                return True
            has_picture = True
        at += num_length_bytes + int.from_bytes(data[at : at + num_length_bytes], "big")
    return not has_picture or at != len(data)


def stated_bytes(path: Path) -> int:
    """The size that a Matroska or WebM file says it has; 0 if it does not say. FFmpeg reads past a missing end."""
    with path.open("rb") as file:
        head = file.read(256)
    size_at = head.find(MATROSKA_SEGMENT) + len(MATROSKA_SEGMENT)
    if size_at < len(MATROSKA_SEGMENT) or size_at >= len(head):
        return 0
    length = 9 - head[size_at].bit_length()  # leading zeros tell the number of bytes
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(head[size_at : size_at + length], "big") & unknown
    return 0 if size == unknown else size_at + length + size


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
