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
import platform
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # not installed

from damage import GENERATED, KINDS, VIDEO_SUFFIXES, generate

from a2video.data import pyav_reader
from a2video.data.packet_index import packets
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError

Label = int
SILENT_CODECS = {
    "ffv1",
    "hevc",
    "mjpeg",
    "wmv2",
}  # that log damage but do not mark frames; others also log what is fine
EXTRA_BYTES = 1 << 30  # what reading one file may add to the address space
PEAK_BYTES = 600 << 20  # and to the memory in use


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
        codec.thread_count = 1  # dav1d has threads of its own, which report errors late
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
        if has_error or (codec.name in SILENT_CODECS and any(log[1] == codec.name for log in logs)):
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
        return Outcome("crash or hang", [found], seconds)
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
    reasons: Counter[str] = Counter()
    slowest, largest, failures = 0.0, 0, []
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
        table[kind]["violations"] += bool(outcome.violations)
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
    report = write_table(table, slowest, largest, args)
    print(report)
    if args.report:
        args.report.write_text(report, encoding="utf-8")
    (args.out / "reasons.json").write_text(json.dumps(reasons.most_common(), indent=1))
    return 1 if failures else 0


def write_table(table: dict[str, Counter[str]], slowest: float, largest: int, args: argparse.Namespace) -> str:
    """The results as markdown."""
    columns = ["refused on opening", "refused on reading", "read", "crash or hang", "unnoticed", "violations"]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    lines = [
        "# Damaged files",
        "",
        f"`python benchmarks/fuzz_readers.py --videos {args.videos} --out {args.out} --count {args.count} "
        f"--seed {args.seed}` at commit {commit.strip()}, PyAV {av.__version__} (libavcodec {ffmpeg}), Python "
        f"{platform.python_version()}. Longest for one file {slowest:.1f} s, most memory {largest >> 20} MiB.",
        "",
        "| damage | files | refused on opening | some frames refused | all read | crash, hang, other exception "
        "| returned changed pixels no decoder notices | violations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for kind, counts in [*table.items(), ("all", total)]:
        cells = [sum(counts[column] for column in columns[:4]), *(counts[column] for column in columns)]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
        total.update(counts)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
