"""Opens cameras and network streams, and decodes what they send as it comes."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.packet import Packet
from av.video import VideoStream
from av.video.frame import VideoFrame

from a2video.data.pyav_reader import ALLOWED_FORMATS, EXPLODING_CODECS, OPTIONS
from a2video.data.readers import MAX_PIXELS
from a2video.errors import InputError
from a2video.inference.live_frames import Lag

SCHEMES = ("http://", "https://", "rtsp://", "rtsps://")
# Self-contained formats only: a playlist (HLS, DASH, SDP) would have us open what a server names, local files too.
LIVE_FORMATS = f"{ALLOWED_FORMATS},mpjpeg,mjpeg,rtsp"
LIVE_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,srtp"
CLOCKLESS_FORMATS = {"mpjpeg", "mjpeg", "mpegvideo", "m4v", "h264", "hevc"}  # carry no times: FFmpeg makes them up

MAX_LAG_SECONDS = 2.0  # of reading behind the stream, before it skips to where the stream is


def is_live(source: str) -> bool:
    """Whether this is a camera's number or the address of a stream, such as 0 or rtsp://host/path."""
    return (source.isascii() and source.isdecimal()) or source.lower().startswith(SCHEMES)


def masked(source: str) -> str:
    """An address without its password and its query, which may hold one, for messages."""
    return re.sub(r"\?.*", "?***", re.sub(r"(?<=//)([^:/@]*):.*@", r"\1:***@", source, flags=re.S), flags=re.S)


class ConnectionLostError(Exception):
    """An open camera or stream that sends nothing any more; says why, without its name."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a stream.

    Attributes:
        picture: as it was decoded.
        seconds: the time that the stream gives it, from an arbitrary zero; that of its arrival if it gives none.
        arrival: when the data that completed it came, by time.monotonic().
        num_skipped: packets before it that were not decoded, to catch up with the stream.
    """

    picture: VideoFrame
    seconds: float
    arrival: float
    num_skipped: int = 0


class Connection:
    """An open camera or stream; close it after use.

    Args:
        source: a camera's number or an address; see is_live.
        timeout_seconds: without an answer, or without data later on, before giving up.

    Attributes:
        is_file: the server has stated a length: what it sends is a file, which has an end.
        num_damaged: packets and frames left out so far, for they were damaged.

    Raises:
        InputError: it cannot be opened, or has no video that may be decoded.
    """

    def __init__(self, source: str, timeout_seconds: float) -> None:
        self.name, self.timeout_seconds = masked(source), timeout_seconds
        file, format_name, options = _address(source)
        try:
            self._container = av.open(
                file, "r", format_name, OPTIONS | options, timeout=timeout_seconds, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise InputError(f"{self.name}: {_reason(error, file, timeout_seconds)}") from None
        video = self._container.streams.best("video")
        if not isinstance(video, VideoStream):
            self.close()
            raise InputError(f"{self.name}: has no video that can be decoded; give another address")
        self._video, self._codec = video, video.codec_context
        if (pixels := self._codec.width * self._codec.height) > MAX_PIXELS:
            self.close()
            size = f"{self._codec.width} x {self._codec.height}"
            raise InputError(f"{self.name}: claims {size} pixels, {pixels:,} where the most is {MAX_PIXELS:,}")
        self._codec.thread_type, self._codec.thread_count = "NONE", 1
        self._codec.options = OPTIONS | ({"err_detect": "explode"} if self._codec.name in EXPLODING_CODECS else {})
        self._has_clock = self._container.format.name not in CLOCKLESS_FORMATS
        self.is_file = self._container.size > 0
        self.num_damaged = 0
        self._lag, self._is_skipping = Lag(), False

    @property
    def stated_fps(self) -> float | None:
        """Frames in a second as the stream states them, if it does."""
        rate = (self._video.average_rate or self._video.guessed_rate) if self._has_clock else None
        return float(rate) if rate else None

    def frames(self) -> Iterator[LiveFrame]:
        """Frames in the order of their presentation; ends only with a file.

        Where they are taken more slowly than they come, and a file's are not, some are skipped.

        Raises:
            ConnectionLostError: the stream has ended or is silent for too long.
        """
        last, num_skipped = time.monotonic(), 0
        try:
            for packet in self._container.demux(self._video):
                arrival = time.monotonic()
                if self._must_skip(packet, arrival):
                    num_skipped += 1
                    continue
                for frame in self._decode(packet):
                    last = arrival
                    yield LiveFrame(frame, self._seconds(frame.pts, arrival), arrival, num_skipped)
                    num_skipped = 0
                if arrival - last > self.timeout_seconds:
                    raise ConnectionLostError(f"no frame that can be decoded for {self.timeout_seconds:g} seconds")
        except av.ExitError:
            raise ConnectionLostError(f"nothing has come for {self.timeout_seconds:g} seconds") from None
        except av.FFmpegError as error:
            raise ConnectionLostError(error.strerror) from None
        if not self.is_file:
            raise ConnectionLostError("the other side has ended it")

    def _must_skip(self, packet: Packet[VideoStream], arrival: float) -> bool:
        """Whether this packet is skipped: from when reading is too late, until it is in time and at a keyframe."""
        if self.is_file or not packet.size or packet.dts is None:
            return False
        lag = self._lag.add(self._seconds(packet.dts, arrival), arrival)
        if lag > MAX_LAG_SECONDS and not self._is_skipping:
            self._is_skipping = True
            self._codec.flush_buffers()
        elif lag < MAX_LAG_SECONDS / 4 and packet.is_keyframe:
            self._is_skipping = False
        return self._is_skipping

    def _seconds(self, ticks: int | None, arrival: float) -> float:
        if not self._has_clock or ticks is None or self._video.time_base is None:
            return arrival
        return float(ticks * self._video.time_base)

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            frames = self._codec.decode(packet if packet.size else None)
        except av.FFmpegError:
            self.num_damaged += 1
            return []
        whole = [frame for frame in frames if not frame.is_corrupt]
        self.num_damaged += len(frames) - len(whole)
        return whole

    def close(self) -> None:
        """Hangs up."""
        self._container.close()


def _address(source: str) -> tuple[str, str | None, dict[str, str]]:
    """What FFmpeg is to open: file, format (None to find out) and options."""
    if not source.isdecimal():
        network = {"protocol_whitelist": LIVE_PROTOCOLS, "format_whitelist": LIVE_FORMATS}
        return source, None, network | {"rtsp_flags": "prefer_tcp", "analyzeduration": "2000000"}
    if sys.platform == "darwin":
        return f"{source}:none", "avfoundation", {"framerate": "30"}
    if sys.platform == "win32":
        cameras = [device.name for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
        return f"video={cameras[int(source)] if int(source) < len(cameras) else source}", "dshow", {}
    return f"/dev/video{source}", "v4l2", {}


def _reason(error: Exception, file: str, timeout_seconds: float) -> str:
    """Why it cannot be opened, and what to do."""
    if isinstance(error, av.ExitError):
        return f"has not answered for {timeout_seconds:g} seconds; check the address"
    found = getattr(error, "strerror", None) or str(error)
    if not file.lower().startswith(SCHEMES):
        return f"there is no camera {file} ({found}); give the number of another, or the address of a stream"
    if isinstance(error, av.ArgumentError | av.InvalidDataError):
        return f"sends no video in a format that is opened, and playlists such as HLS are not ({found})"
    return f"cannot be reached ({found}); check the address"
