"""Small videos of many kinds, and ways to damage a file."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ["SVT_LOG"] = "1"  # the AV1 encoder prints errors only
import av
import numpy as np

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".flv", ".asf")
BIT_EXACT = {"fflags": "+bitexact"}  # no random numbers in Matroska, so that a seed gives the same files again
X264 = {"preset": "veryfast", "g": "24", "bf": "3"}
GENERATED: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", X264),
    "h264_refs.mp4": ("libx264", {"x264-params": "keyint=20:bframes=5:b-pyramid=normal:ref=5:weightp=2"}),
    "h264_slices.mp4": ("libx264", {"profile": "baseline", "x264-params": "keyint=30:slices=3"}),
    "open_gop.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}),
    "refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:bframes=2"}),
    "h264.mov": ("libx264", X264),
    "h264.ts": ("libx264", X264),
    "h264.avi": ("libx264", {"preset": "veryfast", "g": "24", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "24", "bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"g": "24", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mjpeg.avi": ("mjpeg", {}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=24:bframes=3:log-level=none:pools=1"}),
    "h264.flv": ("libx264", X264),
    "ffv1.mkv": ("ffv1", {"level": "3", "slices": "4"}),
    "vp8.webm": ("libvpx", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "wmv2.asf": ("wmv2", {"g": "24"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "20", "svtav1-params": "lp=1"}),
}


def generate(folder: Path, name: str) -> Path:
    """Encodes 60 frames of moving noise."""
    codec, options = GENERATED[name]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (80, 160, 3), dtype=np.uint8)
    path = folder / name
    with av.open(str(path), "w", container_options=BIT_EXACT) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(60):
            image = noise[number // 4 : number // 4 + 64, number : number + 96] // 2 + number
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


Damage = Callable[[bytearray, random.Random], "bytearray | None"]


def cut(data: bytearray, rng: random.Random) -> bytearray:
    """Truncated."""
    return data[: rng.randrange(len(data))]


def flip_header(data: bytearray, rng: random.Random) -> bytearray:
    """1 to 20 bits flipped in the first 1,000 bytes or within the index of an MP4."""
    start = data.find(b"moov")
    if start < 0 or rng.random() < 0.3:
        first, last = 0, min(1000, len(data))
    else:
        first, last = start, min(len(data), start + 4 + int.from_bytes(data[start - 4 : start], "big"))
    for _ in range(rng.choice((1, 1, 3, 20))):
        data[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return data


def flip_body(data: bytearray, rng: random.Random) -> bytearray:
    """1 to 50 bits flipped anywhere."""
    for _ in range(rng.choice((1, 1, 2, 5, 20, 50))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def zero(data: bytearray, rng: random.Random) -> bytearray:
    """16 to 4,096 bytes set to zero."""
    start, num = rng.randrange(len(data)), 1 << rng.randrange(4, 13)
    data[start : start + num] = bytes(len(data[start : start + num]))
    return data


def remove(data: bytearray, rng: random.Random) -> bytearray:
    """1 to 4,096 bytes removed, or put in a second time."""
    start, num = rng.randrange(len(data)), 1 << rng.randrange(13)
    if rng.random() < 0.5:
        del data[start : start + num]
    else:
        data[start:start] = data[start : start + num]
    return data


def text(data: bytearray, rng: random.Random) -> bytearray:
    """Text, or random bytes after the first few."""
    if rng.random() < 0.5:
        return bytearray(b"No video here.\n" * rng.randrange(1, 999))
    head = rng.choice((0, 4, 12, 64, 200))
    return data[:head] + bytearray(rng.randbytes(rng.randrange(1, 50_000)))


def wrong_name(data: bytearray, rng: random.Random) -> bytearray:
    """Whole, but with another format's suffix."""
    return data


def sound(data: bytearray, rng: random.Random) -> bytearray:
    """Audio only."""
    suffix, codec = rng.choice((("mp4", "aac"), ("mkv", "aac"), ("avi", "pcm_s16le")))
    path = Path(tempfile.mkdtemp()) / f"sound.{suffix}"
    with av.open(str(path), "w", container_options=BIT_EXACT) as out:
        stream: Any = out.add_stream(codec, rate=8000)
        for _ in range(rng.randrange(1, 20)):
            size = stream.codec_context.frame_size or 1024
            frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), format="s16", layout="mono")
            frame.rate = 8000
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    result = bytearray(path.read_bytes())
    path.unlink()
    path.parent.rmdir()
    return result


def put(data: bytearray, at: int, value: int, num_bytes: int, order: Any = "big") -> None:
    """Overwrites a number."""
    data[at : at + num_bytes] = value.to_bytes(num_bytes, order)


def lie_length(data: bytearray, rng: random.Random) -> bytearray | None:
    """Headers that state another length: duration, number of frames, of samples, of a sample's ticks."""
    wrong = rng.choice((0, 1, 7, 59, 1000, 10**6, 2**31 - 1, 2**32 - 1))
    # name in the file, offset from its first byte, number of bytes, byte order
    places = [
        *((b"mvhd", 20, 4, "big"), (b"tkhd", 24, 4, "big"), (b"mdhd", 20, 4, "big"), (b"elst", 12, 4, "big")),
        *((b"stts", 12, 4, "big"), (b"stts", 16, 4, "big"), (b"stsz", 12, 4, "big"), (b"stsc", 16, 4, "big")),
        *((b"ctts", 8, 4, "big"), (b"stss", 8, 4, "big"), (b"stco", 8, 4, "big"), (b"mdhd", 16, 4, "big")),
        *((b"avih", 24, 4, "little"), (b"strh", 40, 4, "little"), (b"strh", 36, 4, "little")),
        *((b"\x44\x89\x88", 3, 8, "big"), (b"\x2a\xd7\xb1\x83", 4, 3, "big"), (b"idx1", 4, 4, "little")),
    ]
    present = [place for place in places if place[0] in data]
    if not present:
        return None
    for name, offset, num_bytes, order in rng.sample(present, min(len(present), rng.choice((1, 1, 2)))):
        put(data, data.index(name) + offset, wrong % 256**num_bytes, num_bytes, order)
    return data


def bits_to_bytes(bits: str) -> bytes:
    """Packs "0101..." with the stop bit and padding of H.264."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def golomb(value: int) -> str:
    """Exp-Golomb."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def huge(data: bytearray, rng: random.Random) -> bytearray | None:
    """Claims of 16,000 x 16,000 pixels: in headers of the container and in those of the coded video."""
    num_patched = 0
    for name, first, second, num_bytes, order in (
        (b"tkhd", 80, 84, 2, "big"),
        (b"avc1", 28, 30, 2, "big"),
        (b"hvc1", 28, 30, 2, "big"),
        (b"hev1", 28, 30, 2, "big"),
        (b"mp4v", 28, 30, 2, "big"),
        (b"av01", 28, 30, 2, "big"),
        (b"avih", 40, 44, 4, "little"),
        (b"strf", 12, 16, 4, "little"),
        (b"\xff\xc0\x00\x11\x08", 7, 5, 2, "big"),  # each picture of motion JPEG
        (b"\xff\xc0\x00\x11\x08", 7, 5, 2, "big"),
    ):
        at = data.find(name)
        if at >= 0 and rng.random() < 0.8:
            put(data, at + first, 16000, num_bytes, order)
            put(data, at + second, 16000, num_bytes, order)
            num_patched += 1
    at = data.find(b"\x49\x83\x42")  # VP9: 4 bits, then width and height less one
    if at >= 0:
        head = data[at + 3] >> 4
        put(data, at + 3, head << 36 | 15999 << 20 | 15999 << 4, 5)
        num_patched += 1
    sps = bits_to_bytes(
        f"{66:08b}{0:08b}{62:08b}" + golomb(0) + golomb(0) + golomb(2) + golomb(1) + "0" + golomb(999) * 2 + "1100"
    )
    at = data.find(b"\x67", data.find(b"avcC") if b"avcC" in data else 0)
    if at >= 0 and (b"avcC" in data or b"\x00\x00\x01\x67" in data) and rng.random() < 0.7:
        if b"avcC" not in data:
            at = data.find(b"\x00\x00\x01\x67") + 3
        data[at + 1 : at + 1 + len(sps)] = sps
        num_patched += 1
    return data if num_patched else None


KINDS: dict[str, tuple[Damage, int]] = {  # and how many of 100 files
    "cut off": (cut, 14),
    "bits flipped in the header": (flip_header, 16),
    "bits flipped anywhere": (flip_body, 26),
    "bytes set to zero": (zero, 12),
    "bytes removed or doubled": (remove, 8),
    "text or noise": (text, 3),
    "sound only": (sound, 2),
    "another format's suffix": (wrong_name, 4),
    "header lies about the length": (lie_length, 9),
    "claims 16,000 x 16,000 pixels": (huge, 6),
}
