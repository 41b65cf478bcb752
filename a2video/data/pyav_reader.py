"""The default video reader: FFmpeg through PyAV, exactly the pixels a full sequential decode would give."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video import VideoStream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from a2video.data.metadata import VideoRecord
from a2video.data.packet_index import (
    PacketIndex,
    may_be_referred_to,
    nothing,
    packets,
    scan,
    stated_bytes,
    time_base_of,
)
from a2video.data.readers import MAX_PIXELS, Frames, StartOverError, VideoError, VideoReader, existing_file

# What FFmpeg may open: self-contained files; no playlists, which name other files, and no devices.
ALLOWED_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,ivf,mxf,nut"
# Decoders that can leave out pictures which no other refers to, without a change to any other picture.
SKIPPING_CODECS = {"h264", "mpeg4"}
OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # of the decoder here and of the one that FFmpeg uses when opening
NO_PROBE = {"skip_frame": "all"}  # for the decoder that FFmpeg uses when opening
# Most decoders mark damaged frames or raise an error; some do only when asked to, and some only write to the log.
EXPLODING_CODECS = {"hevc", "mjpeg"}
LOGGING_CODECS = {"ffv1", "msmpeg4", "wmv1", "wmv2"}
WORTH_A_SEEK = 4  # frames: skipping fewer costs more than it saves
REPAIR = "re-encode it or leave it out of the list"


class PyAVReader(VideoReader):
    """Reads with FFmpeg through PyAV, on one thread.

    Opening reads all packets once, without decoding, unless `record` has their index. Where they tell the frames
    (MP4, MOV, Matroska, WebM; MPEG-4 in AVI), decoding starts at a keyframe at or before a wanted frame, ends with
    the last wanted one, and leaves out pictures that nobody wants or needs. What comes out is compared with the
    index; at the first surprise, and at any damage, the reader starts again from the beginning and counts, as it
    always does in other files. Where packets do not even tell the number of frames (MPEG-TS, interlaced video,
    ...), opening decodes the whole video once.

    Rotation is rounded to quarter turns; mirroring is not applied.
    """

    def __init__(self, path: str | os.PathLike[str], record: VideoRecord | None = None) -> None:
        """Opens `path`; raises as `open_video` does."""
        self.path = Path(path)
        self._picture: tuple[int, int, int] | None = None  # width, height and rotation of every frame
        self._reformatter = VideoReformatter()
        self._is_closed = False
        self._open(probes=False)
        try:
            self._index = self._scan() if record is None else record.index
        except BaseException:
            self.close()
            raise
        self._is_at_start = record is not None
        self.fps = float(self._rate())

    def _rate(self) -> Fraction:
        ticks = self._index.times
        if self._container.format.name == "avi" and len(ticks) > 1:  # it states how often a frame may come
            return (len(ticks) - 1) / (int(ticks[-1] - ticks[0]) * self._index.time_base)
        return self._stream.average_rate or self._stream.guessed_rate or Fraction(0)

    def __len__(self) -> int:
        """The number of frames."""
        return self._index.num_frames

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Presentation times in seconds after the first one; even at `fps` where the file has none."""
        ticks = self._index.times
        if len(ticks) == 0:
            return np.arange(len(self)) / (self.fps or 25.0)
        seconds: NDArray[np.float64] = (ticks - ticks[0]) * float(self._index.time_base)
        return seconds

    def record(self) -> VideoRecord:
        """What a metadata cache keeps of this video.

        Raises:
            VideoError: the first frame is damaged.
        """
        self.get_frames([0])
        assert self._picture is not None
        width, height, rotation = self._picture
        times = self.times
        return VideoRecord(
            index=self._index,
            fps=self.fps,
            width=height if rotation % 180 else width,
            height=width if rotation % 180 else height,
            rotation=rotation % 360,
            duration_seconds=float(times[-1]) + (float(times[-1]) / (len(times) - 1) if len(times) > 1 else 0.0),
            codec=self._stream.codec_context.name,
            container=self._container.format.name,
        )

    def decode_all(self) -> Iterator[VideoFrame]:
        """Decodes every frame from the beginning, in order, whatever the index says; ask for nothing else meanwhile.

        Raises:
            VideoError: a frame is damaged, or differs in size or rotation from the first.
        """
        if self._is_closed:
            raise ValueError(f"the reader of {self.path} is closed")
        self._is_at_start = False
        self._container.close()
        self._open(probes=True)  # leads exactly to the beginning in any format; seeking does not
        number = 0
        try:
            for packet in self._container.demux(self._stream):
                for frame in self._decode_packet(packet if packet.size else None):
                    self._check(frame, number)
                    if frame.is_corrupt:
                        raise self._error(f"frame {number} is damaged; {REPAIR}")
                    yield frame
                    number += 1
        except av.FFmpegError as error:
            raise self._error(f"only {number} frames can be decoded ({error.strerror}); {REPAIR}") from error

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a stored pixel divided by its height; None if the file does not tell."""
        return self._codec.sample_aspect_ratio or None

    def close(self) -> None:
        """Releases the file."""
        self._is_closed = True
        self._container.close()

    def _error(self, reason: str) -> VideoError:
        return VideoError(f"{self.path}: {reason}")

    def _open(self, probes: bool) -> None:
        """Opens the container and prepares its best video stream for reading on one thread.

        With `probes` FFmpeg decodes some frames beforehand to find out how the stream orders them. Whoever knows
        frames by their labels can do without, which saves up to two thirds of the time.
        """
        existing_file(self.path)
        try:
            self._container = av.open(
                f"file:{self.path.absolute()}",  # after this prefix FFmpeg takes any name literally
                "r",
                options={
                    **OPTIONS,
                    **({} if probes else NO_PROBE),
                    "protocol_whitelist": "file",
                    "format_whitelist": ALLOWED_FORMATS,
                },
                metadata_errors="replace",
            )
        except av.FFmpegError as error:
            found = f"no video found in its {self.path.stat().st_size} bytes ({error.strerror})"
            raise self._error(f"{found}; get the file again") from error
        streams = self._container.streams
        videos = [s for s in streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
        if not videos:
            self._container.close()
            raise self._error("has no video stream that can be decoded; leave it out of the list")
        best = streams.best("video")
        self._stream = next((stream for stream in videos if stream is best), videos[0])
        self._codec = self._stream.codec_context
        self._codec.thread_type = "NONE"  # frame threads can deadlock in the workers of a data loader
        self._codec.thread_count = 1
        self._codec.options = OPTIONS | ({"err_detect": "explode"} if self._codec.name in EXPLODING_CODECS else {})
        for stream in streams:
            if stream is not self._stream:
                stream.discard = Discard.all
        width, height = self._codec.width, self._codec.height
        if width * height > MAX_PIXELS:
            self._container.close()
            raise self._error(f"claims {width} x {height} pixels, and the most is {MAX_PIXELS:,}; get the file again")

    def _scan(self) -> PacketIndex:
        """The index from the packets alone, or else from decoding everything."""
        try:
            index, num_packets = scan(self._container, self._stream)
        except av.FFmpegError as error:
            raise self._error(f"cannot be read to its end ({error.strerror}); get the file again") from error
        except ValueError as error:
            raise self._error(f"{error}; get the file again") from error
        num_bytes = self.path.stat().st_size
        num_stated = stated_bytes(self.path) if "matroska" in self._container.format.name else 0
        if num_bytes < num_stated:
            raise self._error(f"is cut off after {num_bytes} of {num_stated} bytes; get the file again")
        num_listed = len(self._stream.index_entries) if "mp4" in self._container.format.name else 0
        if num_packets < num_listed:
            raise self._error(f"is cut off after {num_packets} of {num_listed} packets; get the file again")
        if index is not None:
            return index
        times = [frame.pts for frame in self.decode_all()]
        if not times:
            raise self._error("has no frames; get the file again or leave it out of the list")
        known = np.array([-1 if time is None else time for time in times], np.int64)
        is_rising = None not in times and bool((np.diff(known) > 0).all())
        if is_rising:
            return PacketIndex(len(times), times=known, time_base=time_base_of(self._stream))
        return PacketIndex(len(times))

    def _decode(self, wanted: Sequence[int]) -> Iterator[Frames]:
        if self._is_closed:
            raise ValueError(f"the reader of {self.path} is closed")
        try:
            if len(self._index.labels):
                for start, run in self._runs(wanted):
                    for frame in self._decode_run(start, run):
                        yield self._to_rgb(frame)
                return
        except (StartOverError, av.FFmpegError) as error:
            self._index = PacketIndex(len(self), times=self._index.times, time_base=self._index.time_base)
            raise StartOverError from error
        yield from self._decode_counting(wanted)

    def _runs(self, wanted: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Splits frame numbers into runs, each with the place in `keyframes` where its decoding starts."""
        starts = np.searchsorted(self._index.keyframes, wanted, side="right") - 1
        run: list[int] = []
        first = 0
        for number, start in zip(wanted, starts.tolist(), strict=True):
            if run and self._index.keyframes[start] > run[-1] + WORTH_A_SEEK:
                yield first, run
                run = []
            first = first if run else start
            run.append(number)
        yield first, run

    def _decode_run(self, start: int, run: Sequence[int]) -> Iterator[VideoFrame]:
        """Decodes on from a keyframe: yields the frames with the numbers `run`, rising.

        Raises:
            StartOverError: something else came out than the index promises, or something damaged.
        """
        index, codec = self._index, self._codec
        keyframe = int(index.labels[index.keyframes[start]])
        due = index.labels[list(run)].tolist()
        wanted = set(due)
        if not (self._is_at_start and start == 0):
            self._container.seek(int(index.positions[start]), stream=self._stream)
        self._is_at_start = False
        can_leave_out, is_leaving_out = codec.name in SKIPPING_CODECS, False
        codec.skip_frame = "DEFAULT"
        num_sent = num_out = 0
        has_keyframe = False
        for label, packet in packets(self._container, self._stream, index.is_unpacked, keyframe):
            is_wanted = label in wanted
            # While it leaves out pictures, the H.264 decoder is silent about those it fails to decode.
            is_needed = is_wanted or (codec.name == "h264" and may_be_referred_to(packet, codec.extradata))
            if can_leave_out and is_leaving_out == is_needed:
                is_leaving_out = not is_needed
                codec.skip_frame = "NONREF" if is_leaving_out else "DEFAULT"
            num_sent += is_wanted
            frames = self._decode_packet(packet)
            if num_sent == len(due):  # all that the wanted frames refer to has been sent before them
                frames += self._decode_packet(None)
            for frame in frames:
                if frame.pts is None or frame.pts < keyframe:
                    continue  # shown before the keyframe it comes after: may need what was not decoded
                has_keyframe |= frame.pts == keyframe and frame.key_frame
                self._check(frame)
                if not has_keyframe or frame.is_corrupt:
                    raise StartOverError
                if num_out < len(due) and frame.pts == due[num_out]:
                    num_out += 1
                    yield frame
            if num_sent == len(due):
                break
        if num_out < len(due):
            raise StartOverError

    def _decode_counting(self, wanted: Sequence[int]) -> Iterator[Frames]:
        """Decodes from the beginning, every frame."""
        times = nothing() if self._container.format.name == "avi" else self._index.times  # there none is in the frames
        held: deque[tuple[int, VideoFrame]] = deque()  # until those have come out whole that it may refer to
        place = number = 0
        for number, frame in enumerate(self.decode_all()):
            if len(times) and (number >= len(times) or frame.pts != times[number]):
                raise self._error(f"frame {number} does not come at its time; {REPAIR}")
            if place < len(wanted) and number == wanted[place]:
                held.append((number, frame))
                place += 1
            while held and number >= held[0][0] + self._codec.reorder_depth:
                yield self._to_rgb(held.popleft()[1])
            if place == len(wanted) and not held:
                return
        if place < len(wanted):
            raise self._error(f"only {number + 1} of {len(self)} frames can be decoded; {REPAIR}")
        yield from (self._to_rgb(frame) for _, frame in held)

    def _decode_packet(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decodes a packet, or what is left after the last; raises an FFmpegError if the decoder reports damage."""
        if self._codec.name not in LOGGING_CODECS:
            return self._codec.decode(packet)
        level, skips_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # what was said of another packet, or file, counts again
        try:
            with av.logging.Capture() as logs:
                frames = self._codec.decode(packet)
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips_repeated)
        if logs:
            raise av.InvalidDataError(1, logs[0][2].strip())
        return frames

    def _check(self, frame: VideoFrame, number: int | None = None) -> None:
        """Raises unless `frame` looks like all others."""
        picture = (frame.width, frame.height, frame.rotation)
        self._picture = self._picture or picture
        if picture != self._picture:
            if number is None:
                raise StartOverError
            change = f"from {self._picture} to {picture}"
            raise self._error(f"width, height, rotation change at frame {number} {change}; {REPAIR}")

    def _to_rgb(self, frame: VideoFrame) -> Frames:
        return upright_rgb(frame, self._reformatter)


def upright_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> Frames:
    """A decoded frame as RGB (H, W, 3), upright."""
    rgb = cast(Frames, reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    return np.rot90(rgb, round(frame.rotation / 90)) if frame.rotation else rgb  # both count counterclockwise
