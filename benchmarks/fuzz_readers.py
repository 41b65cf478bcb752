"""Damages videos in many ways and shows that the reader gives right frames or one sentence, never anything else.

    python benchmarks/fuzz_readers.py --videos ../shared/videos --out fuzzed --count 500 --seed 0

Each file is opened and read in a process of its own with a limit on time and memory, with and without leaving out
pictures. A frame it returns must be the frame with the same time stamp of a plain sequential decode of the same file,
and that decode must not have met an error in the same group of pictures, unless the frame still is that of the file
before the damage. What breaks this is named, kept in --out, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["SVT_LOG"] = "1"  # errors only
import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # not installed

from a2video.data import pyav_reader
from a2video.data.packet_index import packets
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError

Label = int
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".flv", ".asf")
EXTRA_BYTES = 1 << 30  # what reading one file may add to the address space
PEAK_BYTES = 600 << 20  # and to the memory in use


# ---------------------------------------------------------------------------------------------------- the sources

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
    with av.open(str(path), "w") as out:
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


# ----------------------------------------------------------------------------------------------------- the damage

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
    path = Path(f"/tmp/sound_{os.getpid()}.{suffix}")
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=8000)
        for _ in range(rng.randrange(1, 20)):
            size = stream.codec_context.frame_size or 1024
            frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), format="s16", layout="mono")
            frame.rate = 8000
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    result = bytearray(path.read_bytes())
    path.unlink()
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


# ------------------------------------------------------------------------------------------------ the plain decode


@dataclass
class Truth:
    """What a plain sequential decode gives that keeps going after errors.

    Attributes:
        passes: hashes of the frames with a label, of one pass and of another after it with the same decoder.
        tainted: labels of frames that are damaged, or decoded after an error and before the next keyframe.
    """

    passes: list[dict[Label, set[str]]] = field(default_factory=list)
    tainted: set[Label] = field(default_factory=set)


def digest(image: np.ndarray[Any, Any]) -> str:
    """A short hash of an image and its shape."""
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=8, person=str(image.shape).encode()).hexdigest()


def plain_decode(path: Path, labels: list[Label] | None, is_unpacked: bool) -> Truth:
    """Decodes every frame, twice with one decoder; without `labels`, frames are labelled by their number.

    Where damage goes unnoticed, decoders use what is left from earlier pictures: then both passes differ. A third
    pass finds the errors in pictures that others may refer to.
    """
    truth = Truth()
    logging.disable()
    av.logging.set_level(av.logging.ERROR)  # of this process: errors that are only logged count too
    with av.open(f"file:{path}", options=pyav_reader.OPTIONS, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        codec = stream.codec_context
        codec.options = pyav_reader.OPTIONS
        items = [*_going_on(packets(container, stream, is_unpacked)), (None, None)]
        for _ in range(2):
            truth.passes.append({})
            truth.tainted |= _decode_packets(codec, items, labels, truth.passes[-1])
            codec.flush_buffers()
        if labels:
            codec.skip_frame = "NONREF" if codec.name in ("h264", "mpeg4") else "DEFAULT"
            harmful = _decode_packets(codec, items, labels, {})
            is_tainted = False
            for label, packet in items[:-1]:
                is_tainted = label in harmful or (is_tainted and not packet.is_keyframe)
                if is_tainted and label is not None:
                    truth.tainted.add(label)
    return truth


def _decode_packets(
    codec: av.VideoCodecContext, items: list[Any], labels: list[Label] | None, hashes: dict[Label, set[str]]
) -> set[Label]:
    """Decodes packets and goes on after errors; returns the labels of damaged frames.

    Where frames are numbered, those that come out after an error and before a keyframe count as damaged.
    """
    damaged: set[Label] = set()
    is_tainted = False
    number = 0
    for label, packet in items:
        with av.logging.Capture() as logs:
            try:
                frames = codec.decode(packet)
                has_error = packet is not None and packet.is_corrupt
            except (av.FFmpegError, ValueError):
                frames, has_error = [], True
        if has_error or any(log[1] == codec.name for log in logs):
            is_tainted = True
            damaged |= {label} if labels else set()
        for frame in frames:
            name = frame.pts if labels else number
            number += 1
            is_tainted = frame.is_corrupt or (is_tainted and not frame.key_frame)
            if frame.is_corrupt or (is_tainted and not labels):
                damaged.add(name)
            if name is not None and (not labels or name in labels):
                image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                hashes.setdefault(name, set()).add(digest(image))
    return damaged - {None}


def _going_on(items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    except (av.FFmpegError, ValueError):
        return


# --------------------------------------------------------------------------------------------- reading one file


def read_file(path: Path, seed: int, pipe: Connection) -> None:
    """Opens and reads a file in every way; sends what happened, step by step."""
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + EXTRA_BYTES, virtual + EXTRA_BYTES))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = random.Random(seed)
    got: list[tuple[int, Label, str, str]] = []  # frame, label, hash, how it was read
    labels: list[Label] = []
    is_unpacked = False
    num_frames = 0
    message = ""
    codecs = set(pyav_reader.SKIPPING_CODECS)
    for is_leaving_out in (True, False):
        pyav_reader.SKIPPING_CODECS = codecs if is_leaving_out else set()
        for fresh in range(3):
            try:
                with PyAVReader(path) as video:
                    num_frames, is_unpacked = len(video), video._index.is_unpacked
                    labels = video._index.labels.tolist() or labels
                    assert len(video.times) == num_frames
                    start = rng.randrange(num_frames)
                    requests = [[0], [num_frames // 2], [num_frames - 1]]
                    requests += [[rng.randrange(num_frames) for _ in range(8)]]
                    requests += [[min(start + 8 * step, num_frames - 1) for step in range(8)]]
                    for request in requests if fresh == 0 else requests[fresh + 2 :][:1]:
                        try:
                            frames = video.get_frames(request)
                        except VideoError as error:
                            message = message or str(error)
                            continue
                        for number, frame in zip(request, frames, strict=True):
                            label = labels[number] if labels else number
                            got.append((number, label, digest(frame), f"leave {is_leaving_out} request {request}"))
            except VideoError as error:
                message = message or str(error)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    sentences = message.count("\n") == 0 and (not message or message.startswith(f"{path}: "))
    assert sentences, f"not one sentence with the file's name: {message}"
    pipe.send({"num_frames": num_frames, "message": message, "peak": peak, "got": got, "labelled": bool(labels)})
    resource.setrlimit(resource.RLIMIT_AS, (virtual + EXTRA_BYTES, virtual + EXTRA_BYTES))
    if got:
        pipe.send(plain_decode(path, sorted({label for _, label, _, _ in got}) if labels else None, is_unpacked))


def _guarded(path: Path, seed: int, pipe: Connection) -> None:
    try:
        read_file(path, seed, pipe)
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


@dataclass
class Outcome:
    """What became of one file: `kind` is one of the columns of the table, or a violation in words."""

    kind: str
    violations: list[str]
    seconds: float = 0.0
    peak: int = 0
    message: str = ""
    num_unnoticed: int = 0


def try_file(path: Path, seed: int, limit_seconds: float, original: Truth) -> Outcome:
    """Reads a file in a process of its own and judges what came back."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_guarded, args=(path, seed, sender))
    start = time.monotonic()
    process.start()
    sender.close()

    def receive() -> Any:
        try:
            return receiver.recv() if receiver.poll(limit_seconds) else TimeoutError()
        except EOFError:
            process.join()
            return EOFError(f"process ended with {process.exitcode}")

    result = receive()
    seconds = time.monotonic() - start
    truth = receive() if isinstance(result, dict) and result["got"] else Truth([{}, {}])
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    receiver.close()
    if not isinstance(result, dict):
        found = f"hang: over {limit_seconds} s" if isinstance(result, TimeoutError) else f"crash or exception: {result}"
        return Outcome("VIOLATION", [found], seconds)
    violations = []
    if result["peak"] > PEAK_BYTES:
        violations.append(f"memory: {result['peak'] >> 20} MiB")
    if not isinstance(truth, Truth):
        violations.append(f"plain decode failed: {truth!r}")
        truth = Truth([{}, {}])
    num_unnoticed = 0
    for number, label, found, how in result["got"]:
        is_whole = found in original.passes[0].get(label, ())
        first, second = (one.get(label, set()) for one in truth.passes)
        if found not in first | second and first == second and not is_whole:
            violations.append(f"frame {number} is not that of the plain decode ({how})")
        elif label in truth.tainted and not is_whole:
            violations.append(f"frame {number} comes after an error ({how})")
        num_unnoticed += not is_whole
    kind = (
        "refused on opening" if not result["num_frames"] else "read" if not result["message"] else "refused on reading"
    )
    return Outcome(kind, violations, seconds, result["peak"], result["message"], num_unnoticed)


# ---------------------------------------------------------------------------------------------------- the report


def plan(sources: list[Path], count: int, seed: int) -> Iterator[tuple[int, str, Path, bytearray, str]]:
    """Yields number, kind of damage, source, damaged bytes and suffix of each file."""
    rng = random.Random(seed)
    names = list(KINDS)
    number = 0
    while number < count:
        kind = rng.choices(names, [KINDS[name][1] for name in names])[0]
        source = rng.choice(sources)
        data = KINDS[kind][0](bytearray(source.read_bytes()), random.Random(rng.random()))
        if data is None:
            continue
        suffix = rng.choice(VIDEO_SUFFIXES) if kind == "another format's suffix" else source.suffix
        yield number, kind, source, data, suffix
        number += 1


def main() -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of real videos; only generated ones without")
    parser.add_argument("--out", type=Path, required=True, help="where damaged files are made; the violating ones stay")
    parser.add_argument("--count", type=int, default=500, help="number of damaged files (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit_seconds", type=float, default=30.0, help="for all that is read of one file")
    parser.add_argument("--only", type=int, help="only the file of this number")
    parser.add_argument("--report", type=Path, help="write the table here too, as markdown")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sources = [generate(args.out, name) for name in GENERATED]
    if args.videos:
        sources += sorted(path for path in args.videos.iterdir() if path.suffix in VIDEO_SUFFIXES)
    originals: dict[Path, Truth] = {}
    table: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    slowest, largest, failures, reasons = 0.0, 0, [], Counter()
    for number, kind, source, data, suffix in plan(sources, args.count, args.seed):
        if args.only not in (None, number):
            continue
        path = args.out / f"{number:04}_{source.stem}{suffix}"
        path.write_bytes(data)
        if source not in originals:
            with PyAVReader(source) as video:
                labels = video._index.labels.tolist()
                originals[source] = plain_decode(source, labels, video._index.is_unpacked)
        outcome = try_file(path, number, args.limit_seconds, originals[source])
        table[kind][outcome.kind] += 1
        table[kind]["unnoticed"] += bool(outcome.num_unnoticed and not outcome.violations)
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak)
        if outcome.violations:
            failures.append(number)
            print(f"{path.name} ({kind}): {len(outcome.violations)} x {outcome.violations[0]}", flush=True)
        elif args.only is None and not (os.environ.get("KEEP") and outcome.num_unnoticed):
            path.unlink()
        if args.only is not None:
            print(outcome)
        reasons[outcome.message[outcome.message.find(": ") + 2 :].split(" (")[0].split(";")[0]] += 1
    report = write_table(table, slowest, largest, len(failures), args)
    print(report)
    if args.report:
        args.report.write_text(report, encoding="utf-8")
    (args.out / "reasons.json").write_text(json.dumps(reasons.most_common(), indent=1))
    return 1 if failures else 0


def write_table(
    table: dict[str, Counter[str]], slowest: float, largest: int, num_failures: int, args: argparse.Namespace
) -> str:
    """The results as markdown."""
    columns = ["refused on opening", "refused on reading", "read"]
    lines = [
        "| damage | files | refused on opening | some frames refused | all read "
        "| of these with pixels changed that no decoder notices | violations |",
        "|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for kind, counts in [*table.items(), ("all", total)]:
        num = sum(counts[column] for column in [*columns, "VIOLATION"])
        cells = [num, *(counts[column] for column in columns), counts["unnoticed"], counts["VIOLATION"]]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
        total.update(counts)
    return (
        "\n".join(lines) + f"\n\nslowest {slowest:.1f} s; most memory {largest >> 20} MiB; {num_failures} violations\n"
    )


if __name__ == "__main__":
    sys.exit(main())
