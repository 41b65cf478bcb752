"""The default video reader: FFmpeg through PyAV, exactly the pixels a full sequential decode would give."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from a2video.data.readers import VideoError, VideoReader, check_indices

# What FFmpeg may open: self-contained files; no playlists, which name other files, and no devices.
ALLOWED_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,ivf,mxf,nut"
# Where a packet is one picture; the timed formats also store its presentation time.
TIMED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
COUNTABLE_FORMATS = TIMED_FORMATS | {"avi"}
COUNTABLE_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
PROGRESSIVE = {0, 1}  # AVFieldOrder: unknown, progressive; in the others a packet may be half a picture
MPEG4_PICTURE = b"\x00\x00\x01\xb6"  # starts every picture of MPEG-4 part 2
MAX_PLACEHOLDER_BYTES = 19  # MPEG-4 part 2: packets up to this size may hold no picture (FFmpeg's MAX_NVOP_SIZE)
WORTH_A_SEEK = 4  # frames: skipping fewer costs more than it saves
REPAIR = "re-encode it or leave it out of the list"


class _SurpriseError(Exception):
    """Decoding after a seek did not give the frames that the packets promised."""


class PyAVReader(VideoReader):
    """Reads with FFmpeg through PyAV, on one thread.

    Opening reads all packets once, without decoding. Where they give the presentation time of every frame
    (MP4, MOV, Matroska, WebM), a frame is known by its time and decoding starts at a keyframe at or before
    it. What comes out is compared with the packets; at the first difference the reader starts again from the
    beginning and counts, as it always does in other files. Where packets do not even tell the number of
    frames (MPEG-TS, interlaced video, ...), opening decodes the whole video once.

    Rotation is rounded to quarter turns; mirroring is not applied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`; raises as `open_video` does."""
        self._path = Path(path)
        self._times: list[int] | None = None  # pts of frame 0, 1, ...; None where frames must be counted
        self._keyframes: list[int] = []  # pts, rising
        self._picture: tuple[int, int, int] | None = None  # width, height and rotation of every frame
        self._reformatter = VideoReformatter()
        self._is_closed = False
        self._open()
        try:
            self._num_frames = self._build_index()
        except BaseException:
            self.close()
            raise
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._num_frames

    def close(self) -> None:
        """Release the file."""
        self._is_closed = True
        self._container.close()

    def get_frames(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Read frames as `VideoReader.get_frames` says, each frame needed once."""
        if self._is_closed:
            raise ValueError(f"the reader of {self._path} is closed")
        check_indices(self._path, indices, len(self))
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        try:
            images = self._decode(wanted.tolist())
        except _SurpriseError:
            self._times = None  # from now on count from the beginning
            images = self._decode(wanted.tolist())
        is_as_asked = len(wanted) == len(indices) and bool((places == np.arange(len(wanted))).all())
        return images if is_as_asked else images[places]  # without a second copy where it can be had

    def _error(self, reason: str) -> VideoError:
        return VideoError(f"{self._path}: {reason}")

    def _open(self) -> None:
        """Open the container and prepare its best video stream for reading on one thread."""
        if not self._path.is_file():
            found = "is not a file" if self._path.exists() else "does not exist"
            raise self._error(f"{found}; give the path of a local video file")
        try:
            self._container = av.open(
                f"file:{self._path.absolute()}",  # after this prefix FFmpeg takes any name literally
                "r",
                options={"protocol_whitelist": "file", "format_whitelist": ALLOWED_FORMATS},
                metadata_errors="replace",
            )
        except av.FFmpegError as error:
            found = f"no video found in its {self._path.stat().st_size} bytes ({error.strerror})"
            raise self._error(f"{found}; get the file again") from error
        streams = self._container.streams
        videos = [s for s in streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
        if not videos:
            self._container.close()
            raise self._error("has no video stream that can be decoded; leave it out of the list")
        best = streams.best("video")
        self._stream = next((stream for stream in videos if stream is best), videos[0])
        self._stream.thread_type = "NONE"  # frame threads can deadlock in the workers of a data loader
        self._stream.thread_count = 1
        for stream in streams:
            if stream is not self._stream:
                stream.discard = Discard.all

    def _build_index(self) -> int:
        """Return the number of frames, and note the time of each where frames can be told by their times."""
        container, codec = self._container.format.name, self._stream.codec_context
        times, is_frame_each = self._scan_packets()
        known = self._names(times)
        is_countable = (
            is_frame_each
            and container in COUNTABLE_FORMATS
            and codec.name in COUNTABLE_CODECS
            and codec.field_order in PROGRESSIVE
        )
        looks_timed = known is not None and not (codec.has_b_frames and known == times)  # else decoding times?
        if not is_countable or (container in TIMED_FORMATS and not looks_timed):
            times = [frame.pts for _, frame in self._frames_from(0)]
            known = self._names(times)
            known = known if known == times else None
        if not times:
            raise self._error("has no frames; get the file again or leave it out of the list")
        self._times = known if container in TIMED_FORMATS else None
        return len(times)

    def _names(self, times: list[int | None]) -> list[int] | None:
        """Return `times` in order if they can name frames: all known, different, none before a keyframe."""
        known = sorted({time for time in times if time is not None})
        is_complete = bool(known) and len(known) == len(times) and bool(self._keyframes)
        return known if is_complete and self._keyframes[0] <= known[0] else None

    def _scan_packets(self) -> tuple[list[int | None], bool]:
        """Read all packets without decoding, and note the keyframes.

        Returns:
            The pts of each packet that is to be shown, and whether each of these surely becomes one frame.
        """
        times: list[int | None] = []
        num_packets = 0
        is_frame_each = True
        num_waiting = 0  # MPEG-4 in AVI: pictures that came in one packet with another, and wait for the next
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:  # the end of the stream
                    continue
                if packet.is_corrupt:
                    raise self._error(f"packet {num_packets} is damaged or cut off; get the file again")
                if num_packets == 0 and not packet.is_keyframe:
                    is_frame_each = False  # decoders may drop what comes before the first keyframe
                if self._stream.codec_context.name == "mpeg4":
                    is_placeholder = packet.size <= MAX_PLACEHOLDER_BYTES
                    num_waiting += (0 if is_placeholder else bytes(packet).count(MPEG4_PICTURE)) - 1
                    is_frame_each &= num_waiting in (0, 1)
                if not packet.is_discard:
                    times.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None and (num_packets == 0 or not packet.is_discard):
                    self._keyframes.append(packet.pts)
                num_packets += 1
        except av.FFmpegError as error:
            found = f"cannot be read after packet {num_packets} ({error.strerror})"
            raise self._error(f"{found}; get the file again") from error
        self._keyframes.sort()
        num_listed = len(self._stream.index_entries) if "mp4" in self._container.format.name else 0
        if num_packets < num_listed:
            raise self._error(f"is cut off after {num_packets} of {num_listed} packets; get the file again")
        return times, is_frame_each

    def _decode(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        """Decode the frames `wanted`, rising numbers, in one pass: RGB (len(wanted), H, W, 3)."""
        images = np.empty((0, 0, 0, 3), np.uint8)  # made when the size is known; a second copy could be gigabytes
        number = -1  # of the frame decoded last
        for place, index in enumerate(wanted):
            if place == 0 or self._start(index)[1] > number + WORTH_A_SEEK:
                frames = self._frames_from(index)
            for number, frame in frames:
                if number == index:
                    rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    image = np.rot90(rgb, round(frame.rotation / 90))  # both count counterclockwise
                    if place == 0:
                        images = np.empty((len(wanted), *image.shape), np.uint8)
                    images[place] = image
                    break
            else:
                if self._times is not None:
                    raise _SurpriseError
                raise self._error(f"only {number + 1} of {len(self)} frames can be decoded; {REPAIR}")
        return images

    def _start(self, index: int) -> tuple[int | None, int]:
        """Return the pts of the last keyframe at or before `index`, or None, and the first number then."""
        if self._times is None:
            return None, 0
        start = self._keyframes[bisect_right(self._keyframes, self._times[index]) - 1]
        return start, bisect_left(self._times, start)

    def _frames_from(self, index: int) -> Iterator[tuple[int, VideoFrame]]:
        """Decode on from `index` or some frame before it: yield (number, frame), no number left out."""
        start, number = self._start(index)
        try:
            if start is None:  # opening again leads exactly to the beginning in any format; seeking does not
                self._container.close()
                self._open()
            else:
                self._container.seek(start, stream=self._stream)
            for packet in self._container.demux(self._stream):
                for frame in packet.decode():
                    if start is not None and frame.pts is not None and frame.pts < start:
                        continue  # shown before the keyframe it comes after: may need what was not decoded
                    self._check(frame, number, start)
                    yield number, frame
                    number += 1
        except av.FFmpegError as error:
            if start is not None:
                raise _SurpriseError from error
            raise self._error(f"only {number} frames can be decoded ({error.strerror}); {REPAIR}") from error

    def _check(self, frame: VideoFrame, number: int, start: int | None) -> None:
        """Raise unless `frame` is whole, looks like all others and, after a seek, is the one expected."""
        if start is not None and self._times is not None:
            is_expected = number < len(self._times) and frame.pts == self._times[number]
            if not is_expected or frame.is_corrupt or (frame.pts == start and not frame.key_frame):
                raise _SurpriseError
        if frame.is_corrupt:
            raise self._error(f"frame {number} is damaged; {REPAIR}")
        picture = (frame.width, frame.height, frame.rotation)
        self._picture = self._picture or picture
        if picture != self._picture:
            change = f"from {self._picture} to {picture}"
            raise self._error(f"width, height, rotation change at frame {number} {change}; {REPAIR}")
