"""Write one video again, smaller and with regular keyframes, and prove that what was written is the same video."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.stream import Discard, Disposition
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from encoders import Settings, add_stream, url
from numpy.typing import NDArray
from PIL import Image

from a2video.data.pyav_reader import ALLOWED_FORMATS
from a2video.data.readers import IMAGE_SUFFIXES, VideoError, open_video

MAX_DIFFERENCE = 8.0  # mean, in levels of 255, between pictures of 16 x 16 pixels
RGB_MATRIX = 0  # AVCOL_SPC_RGB
# FFmpeg's filters (name, arguments) that turn a picture by so many quarters counterclockwise.
TURNS = {1: [("transpose", "cclock")], 2: [("hflip", ""), ("vflip", "")], 3: [("transpose", "clock")]}

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """A video and where to write it."""

    source: Path
    target: Path


@dataclass(frozen=True)
class _Written:
    """What the file must show: its upright size, seconds from the first frame, and pictures by frame number."""

    size: tuple[int, int]
    times: list[float]
    pictures: dict[int, Picture]


def unfinished_path(target: Path) -> Path:
    """Where `target` grows: in the same folder, hidden, short enough for any file system, the same in each run."""
    return target.with_name(f".part-{hashlib.sha1(os.fsencode(target.name)).hexdigest()[:16]}{target.suffix}")


def reencode(job: Job, settings: Settings) -> None:
    """Writes job.target, which appears whole and verified or not at all.

    Raises:
        VideoError: the source cannot be read, or what was written is not as it should be.
    """
    if job.source.suffix.lower() in IMAGE_SUFFIXES:
        raise VideoError(f"{job.source}: is a picture; only videos can be transcoded")
    with open_video(job.source) as video:
        num_frames = len(video)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(job.target)
    try:
        written = _write(job.source, unfinished, settings, num_frames)
        _verify(unfinished, written, settings.gop)
        _finish(unfinished, job.target)
    finally:
        unfinished.unlink(missing_ok=True)


def _finish(unfinished: Path, target: Path) -> None:
    """Renames, so that not even a power cut leaves half a file under the final name."""
    _sync(unfinished)
    unfinished.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(source: Path, path: Path, settings: Settings, num_frames: int) -> _Written:
    """Decodes, scales, turns and encodes frame by frame."""
    places = {0, num_frames // 2, num_frames - 1}
    pictures = {}
    times: list[int] = []
    with _opened(source) as container, av.open(url(path), "w") as output:
        stream = _video_stream(container)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        counted = container.format.name == "avi" or stream.time_base is None  # AVI has no times of its own
        base = 1 / rate if counted or stream.time_base is None else stream.time_base
        for number, frame in enumerate(_frames(source, container, stream)):
            if number == 0:
                scaler = _Scaler(frame, settings)
                encoder = add_stream(output, settings, scaler.upright_size, rate, base)
                scaler.describe(encoder, stream.codec_context.sample_aspect_ratio)
            if number in places:
                pictures[number] = _picture(np.rot90(frame.to_ndarray(format="rgb24"), scaler.turns))
            times.append(_time(None if counted else frame.pts, times, round(1 / (rate * base))))
            small = scaler(frame)
            small.time_base = encoder.codec_context.time_base
            small.pts = round((times[-1] - times[0]) * base / small.time_base)
            _mux(output, encoder, small, rate)
        if len(times) != num_frames:
            raise VideoError(f"{source}: only {len(times)} of {num_frames} frames can be decoded")
        _mux(output, encoder, None, rate)
    return _Written(scaler.upright_size, [float((time - times[0]) * base) for time in times], pictures)


def _mux(output: OutputContainer, encoder: VideoStream, frame: VideoFrame | None, rate: Fraction) -> None:
    for packet in encoder.encode(frame):
        if not packet.duration and packet.time_base:  # not every encoder sets it; the last one counts in the file's fps
            packet.duration = round(1 / (rate * packet.time_base))
        output.mux(packet)


def _opened(source: Path) -> InputContainer:
    options = {"protocol_whitelist": "file", "format_whitelist": ALLOWED_FORMATS}
    return av.open(url(source), "r", options=options, metadata_errors="replace")


def _video_stream(container: InputContainer) -> VideoStream:
    """The stream that PyAVReader reads, to be decoded on one thread."""
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    chosen = next((stream for stream in videos if stream is best), videos[0])
    chosen.codec_context.thread_count = 1
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all
    return chosen


def _frames(source: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames, each of which must be whole and look like the first."""
    look = None
    try:
        for number, frame in enumerate(container.decode(stream)):
            look = look or (frame.width, frame.height, frame.rotation)
            if frame.is_corrupt or (frame.width, frame.height, frame.rotation) != look:
                raise VideoError(f"{source}: frame {number} is damaged, or differs in size or rotation from the first")
            yield frame
    except av.FFmpegError as error:
        raise VideoError(f"{source}: cannot be decoded to its end ({error.strerror})") from error


def _time(pts: int | None, before: list[int], step: int) -> int:
    """The time of the next frame; one that is not known, or not after the last frame's, follows it by `step` or 1."""
    if not before:
        return pts or 0
    if pts is None:
        return before[-1] + max(1, step)
    return max(pts, before[-1] + 1)


class _Scaler:
    """Makes frames like `first` as small as asked and upright; colours keep their matrix."""

    def __init__(self, first: VideoFrame, settings: Settings) -> None:
        self.turns = round(first.rotation / 90) % 4  # quarters, counterclockwise
        self.size = _scaled_size(first.width, first.height, settings)
        self.upright_size = self.size[::-1] if self.turns % 2 else self.size
        self._reformatter = VideoReformatter()
        self._format = settings.pixel_format
        self._must_convert = settings.codec == "mpeg4"  # its files do not tell the matrix, and readers assume BT.601
        self._graph: Graph | None = None
        if self.turns:
            self._graph = Graph()
            width, height = self.size
            format = VideoFormat(self._format)
            steps = [self._graph.add_buffer(width=width, height=height, format=format, time_base=Fraction(1))]
            steps += [self._graph.add(name, arguments) for name, arguments in TURNS[self.turns]]
            steps.append(self._graph.add("buffersink"))
            self._graph.link_nodes(*steps).configure()
        self._first = self(first)

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """The frame to encode, without a time."""
        small = self._reformatter.reformat(
            frame,
            *self.size,
            self._format,
            dst_colorspace=Colorspace.ITU601 if self._must_convert or frame.colorspace == RGB_MATRIX else None,
            dst_color_range=ColorRange.JPEG if self._format.startswith("yuvj") else ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        small.pts = None
        if self._graph is not None:
            self._graph.push(small)
            small = self._graph.vpull()
        small.pict_type = PictureType.NONE  # the encoder's choice, not the source's
        return small

    def describe(self, stream: VideoStream, pixel_aspect: Fraction | None) -> None:
        """Tells the encoder what the colours mean and which shape a pixel has."""
        codec, first = stream.codec_context, self._first
        codec.colorspace, codec.color_range = first.colorspace, first.color_range
        codec.color_primaries, codec.color_trc = first.color_primaries, first.color_trc
        if pixel_aspect:
            codec.sample_aspect_ratio = 1 / pixel_aspect if self.turns % 2 else pixel_aspect


def _scaled_size(width: int, height: int, settings: Settings) -> tuple[int, int]:
    """Never larger than the video; even where the pixel format shares colours between neighbours."""
    scale = min(1.0, settings.short_side / min(width, height))
    format = VideoFormat(settings.pixel_format)
    across, down = 2 // format.chroma_width(2), 2 // format.chroma_height(2)
    return (max(1, round(width * scale / across)) * across, max(1, round(height * scale / down)) * down)


def _picture(rgb: NDArray[np.uint8]) -> Picture:
    """Small enough that compression does not show: float32 (16, 16, 3) in [0, 255]."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((16, 16), Image.Resampling.BOX), np.float32)


def _verify(path: Path, written: _Written, gop: int) -> None:
    """Raises VideoError unless the file holds what was meant to be written."""
    with open_video(path) as video:
        if len(video) != len(written.times):
            raise VideoError(f"its transcoded file has {len(video)} frames instead of {len(written.times)}")
        for number, expected in written.pictures.items():
            frame = video.get_frames([number])[0]
            if frame.shape[1::-1] != written.size:
                raise VideoError(f"its transcoded file is {frame.shape[1]}x{frame.shape[0]} instead of {written.size}")
            difference = float(abs(_picture(frame) - expected).mean())
            if difference > MAX_DIFFERENCE:
                raise VideoError(
                    f"its transcoded file differs from it by {difference:.1f} levels in frame {number}: expected at "
                    f"most {MAX_DIFFERENCE:g}; ask for a better quality with --options"
                )
    with _opened(path) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        packets = sorted(
            (float((packet.pts or 0) * stream.time_base), packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size
        )
    apart = max(abs(time - expected) for (time, _), expected in zip(packets, written.times, strict=True))
    if apart > float(stream.time_base) + 1e-4:
        raise VideoError(f"its transcoded file shows a frame {apart:.4f} s too early or late")
    keys = [number for number, (_, is_key) in enumerate(packets) if is_key] + [len(packets)]
    longest = max(after - before for before, after in pairwise(keys))
    if keys[0] != 0 or longest > gop:
        raise VideoError(f"its transcoded file has keyframes up to {longest} frames apart instead of {gop}")
