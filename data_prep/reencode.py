"""Write one video again, smaller and with regular keyframes, and prove that what was written is the same video."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from encoders import Encoder, Settings, url
from numpy.typing import NDArray

from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import IMAGE_SUFFIXES, VideoError

MAX_DIFFERENCE = 8.0  # mean, in levels of 255, between pictures of 16 x 16 pixels
SAME = 0.5  # such a difference between all frames is that of a good encoder
RGB_MATRIX = 0  # AVCOL_SPC_RGB
# FFmpeg's filters (name, arguments) that turn a picture by so many quarters counterclockwise.
TURNS = {1: [("transpose", "cclock")], 2: [("hflip", ""), ("vflip", "")], 3: [("transpose", "clock")]}

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """A video and where to write it."""

    source: Path
    target: Path


@dataclass(frozen=True)
class _Written:
    """What the file must show: its upright size, and the seconds from the first frame and a picture for each frame."""

    size: tuple[int, int]
    times: NDArray[np.float64]
    pictures: list[Picture]


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
    job.target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(job.target)
    try:
        with closing(PyAVReader(job.source)) as video:
            written = _write(video, unfinished, settings)
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


def _write(video: PyAVReader, path: Path, settings: Settings) -> _Written:
    """Decodes, scales, turns and encodes frame by frame."""
    pictures = []
    try:
        with av.open(url(path), "w") as output:
            for number, frame in enumerate(video.decode_all()):
                if number == len(video):
                    raise VideoError(f"{video.path}: has more frames than the {number} that its packets tell")
                if number == 0:
                    scaler = _Scaler(frame, settings)
                    encoder = _encoder(output, settings, scaler.upright_size, video, frame.time_base)
                    scaler.describe(encoder.codec, video.pixel_aspect)
                encoder.encode(scaler(frame))
                pictures.append(_picture(frame))
            if len(pictures) != len(video):
                raise VideoError(f"{video.path}: only {len(pictures)} of {len(video)} frames can be decoded")
            encoder.finish()
    except av.FFmpegError as error:
        raise VideoError(f"{video.path}: cannot be written with codec {settings.codec} ({error.strerror})") from error
    return _Written(scaler.upright_size, video.times, pictures)


def _encoder(
    output: OutputContainer, settings: Settings, size: tuple[int, int], video: PyAVReader, base: Fraction | None
) -> Encoder:
    fps = video.fps or 25.0
    base = base or 1 / Fraction(fps).limit_denominator(1001)
    return Encoder(output, settings, size, fps, [round(time / base) for time in video.times.tolist()], base)


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

    def describe(self, codec: VideoCodecContext, pixel_aspect: Fraction | None) -> None:
        """Tells the encoder what the colours mean and which shape a pixel has."""
        first = self._first
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


def _picture(frame: VideoFrame) -> Picture:
    """Upright and so small that compression does not show: uint8 (16, 16, 3)."""
    small = frame.reformat(32, 32, "rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()
    whole = small.reshape(16, 2, 16, 2, 3).mean((1, 3))  # FFmpeg gives two pixels one colour, and fields their own rows
    return np.rot90(whole.astype(np.uint8), round(frame.rotation / 90))


def _verify(path: Path, written: _Written, gop: int) -> None:
    """Raises VideoError unless the file holds what was meant to be written."""
    differences: list[list[float]] = []  # of each frame from those before, at and after its place
    last = len(written.pictures) - 1
    with closing(PyAVReader(path)) as video:
        if len(video) != last + 1:
            raise VideoError(f"its transcoded file has {len(video)} frames instead of {last + 1}")
        for number, frame in enumerate(video.decode_all()):
            if (frame.width, frame.height) != written.size:
                raise VideoError(f"its transcoded file is {frame.width}x{frame.height} instead of {written.size}")
            picture = _picture(frame).astype(np.int16)
            places = (max(number - 1, 0), number, min(number + 1, last))
            differences.append([float(abs(picture - written.pictures[place]).mean()) for place in places])
            if differences[-1][1] > MAX_DIFFERENCE:
                raise VideoError(
                    f"its transcoded file differs from it by {differences[-1][1]:.1f} levels in frame {number}: "
                    f"expected at most {MAX_DIFFERENCE:g}; ask for a better quality with --options"
                )
    if len(differences) != last + 1:
        raise VideoError(f"its transcoded file has {len(differences)} frames instead of {last + 1}")
    before, at, after = np.mean(differences, axis=0)
    if at > 2 * min(before, after) + SAME:
        raise VideoError(f"its transcoded file shows each frame one place too {'late' if before < after else 'early'}")
    _verify_packets(path, written.times, gop)


def _verify_packets(path: Path, times: NDArray[np.float64], gop: int) -> None:
    """Raises VideoError unless frames come at their times and keyframes in their places."""
    with av.open(url(path)) as container:
        stream = container.streams.video[0]
        base = Fraction(stream.time_base or 1)  # a stream of a closed container says anything
        packets = sorted(
            (float((packet.pts or 0) * base), packet.is_keyframe) for packet in container.demux(stream) if packet.size
        )
    apart = max(abs(time - expected) for (time, _), expected in zip(packets, times.tolist(), strict=True))
    if apart > float(base) + 1e-4:
        raise VideoError(f"its transcoded file shows a frame {apart:.4f} s too early or late")
    keys = [number for number, (_, is_key) in enumerate(packets) if is_key] + [len(packets)]
    longest = max(after - before for before, after in pairwise(keys))
    if keys[0] != 0 or longest > gop:
        raise VideoError(f"its transcoded file has keyframes up to {longest} frames apart instead of {gop}")
