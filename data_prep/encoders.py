"""Which encoder writes the videos and how, and whether that works here at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from a2video.data.readers import open_video
from a2video.errors import InputError

# Containers that keep the time of each frame.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
# Near-transparent quality where the user asks for none, one thread, no cuts of the encoder's own, quiet.
QUANTISER_3 = {"flags": "+cgop+qscale", "global_quality": "354"}
NO_CUTS = {"sc_threshold": "1000000000"}  # without which encoders of the MPEG family refuse closed groups of pictures
CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "medium", "sc_threshold": "0"},
    "libx265": {"crf": "20", "preset": "medium", "x265-params": "scenecut=0:open-gop=0:pools=1:log-level=error"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4"},
    "libsvtav1": {"crf": "24", "preset": "8", "svtav1-params": "scd=0:lp=1"},
    "mpeg4": QUANTISER_3 | NO_CUTS,
    "mpeg2video": QUANTISER_3 | NO_CUTS,
    "mpeg1video": QUANTISER_3 | NO_CUTS | {"strict": "unofficial"},  # for the rates below 24
    "msmpeg4": QUANTISER_3 | NO_CUTS,
    "mjpeg": {"flags": "+qscale", "global_quality": "354"},
}
MAX_RATE_PART = 65535  # numerator and denominator of the frame rate: MPEG-4 part 2 takes no larger ones
MAX_FRAMES_PER_SECOND = 240  # that encoders plan for; it does not change the times


@dataclass(frozen=True)
class Settings:
    """What to write.

    Attributes:
        short_side: in pixels; smaller videos keep their size.
        gop: frames from one keyframe to the next.
        codec: FFmpeg's name of an encoder.
        options: of the encoder, (name, value).
        pixel_format: FFmpeg's name.
        suffix: of the files, which chooses the container.
    """

    short_side: int = 256
    gop: int = 12
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = ()
    pixel_format: str = "yuv420p"
    suffix: str = ".mp4"

    def encoder_options(self) -> dict[str, str]:
        """Ours, with the user's in their place; lists of parameters in parameters (`x265-params`) are joined."""
        options = dict(CODEC_OPTIONS.get(self.codec, {}))
        for name, value in self.options:
            options[name] = f"{options[name]}:{value}" if name.endswith("-params") and name in options else value
        keys = {"g": str(self.gop)} | ({} if "global_quality" in options else {"keyint_min": str(self.gop)})
        return {"flags": "+cgop"} | keys | options


def check_settings(folder: Path, settings: Settings) -> None:
    """Writes and deletes a small video with these settings.

    Raises:
        InputError: they do not work; one sentence that names the wrong one.
    """
    try:
        codec = av.Codec(settings.codec, "w")
    except UnknownCodecError:
        raise InputError(f"codec {settings.codec} is none that PyAV {av.__version__} can write here") from None
    if codec.type != "video":
        raise InputError(f"codec {settings.codec} writes {codec.type}: expected one for video")
    known = [known.name for known in codec.video_formats or []]
    if known and settings.pixel_format not in known:
        raise InputError(
            f"codec {settings.codec} cannot write the pixel format {settings.pixel_format}: expected one of "
            f"{', '.join(known)}"
        )
    path = folder / f".part-trial{settings.suffix}"
    error = _trial_error(path, settings)
    if error is not None:
        for option in settings.options:
            others = tuple(other for other in settings.options if other != option)
            if _trial_error(path, replace(settings, options=others)) is None:
                raise InputError(f"codec {settings.codec} refuses --options {'='.join(option)} ({error})")
        raise InputError(
            f"codec {settings.codec} does not write {settings.suffix} files of {settings.pixel_format} ({error})"
        )


def _trial_error(path: Path, settings: Settings) -> str | None:
    """Why three frames cannot be written and read, or None."""
    try:
        unknown, messages = _write_trial(path, settings)
        with open_video(path) as video:
            video.get_frames([0, 2])
    except av.FFmpegError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    finally:
        path.unlink(missing_ok=True)
    for message in messages:
        if "option" in message.lower():
            return message
    return f"there is no option {' and no option '.join(unknown)}" if unknown else None


def _write_trial(path: Path, settings: Settings) -> tuple[list[str], list[str]]:
    """The options that the encoder did not take, and what it said."""
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs, av.open(url(path), "w") as output:
            encoder = Encoder(output, settings, (256, 256), 25, [0, 512, 1024], Fraction(1, 12800))
            for _ in range(3):
                encoder.encode(VideoFrame(256, 256, settings.pixel_format))
            encoder.finish()
            return list(encoder.codec.options), [message.strip() for _, _, message in logs]
    finally:
        av.logging.set_level(None)


class Encoder:
    """Encodes frames that it counts, and gives each packet its time.

    Encoders never see the times: some take only a few frame rates, and none of them need to know more.

    Args:
        output: where packets go.
        settings: which encoder.
        size: (width, height) in pixels.
        fps: frames per second, which encoders plan for; where they take only some, the nearest.
        times: of each frame, in units of `time_base`; rising, the first one 0.
        time_base: in seconds.
    """

    def __init__(
        self,
        output: OutputContainer,
        settings: Settings,
        size: tuple[int, int],
        fps: float,
        times: Sequence[int],
        time_base: Fraction,
    ) -> None:
        rate = Fraction(min(max(fps, 1), MAX_FRAMES_PER_SECOND))
        rate = rate.limit_denominator(MAX_RATE_PART // math.ceil(rate))
        known = [Fraction(known.num, known.den) for known in av.Codec(settings.codec, "w").frame_rates or []]
        rate = min(known, key=lambda known: abs(known - rate)) if known else rate
        stream = output.add_stream(settings.codec, rate=rate, options=settings.encoder_options())
        assert isinstance(stream, VideoStream)
        stream.time_base = time_base
        self._stream, self._output = stream, output
        self.codec = stream.codec_context
        self.codec.width, self.codec.height = size
        self.codec.pix_fmt = settings.pixel_format
        self.codec.thread_count = 1
        self.codec.time_base = 1 / rate
        self._times, self._time_base = times, time_base
        self._step = max(1, round(times[-1] / (len(times) - 1))) if len(times) > 1 else round(1 / (fps * time_base))
        self._num_frames = 0

    def encode(self, frame: VideoFrame) -> None:
        """Takes the next frame."""
        frame.pts, frame.time_base = self._num_frames, self.codec.time_base
        self._num_frames += 1
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what is left."""
        self._mux(self._stream.encode(None))

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            shown, decoded = packet.pts, packet.pts if packet.dts is None else packet.dts
            packet.pts, packet.dts = self._time(shown), self._time(decoded)
            packet.duration, packet.time_base = self._time(shown + 1) - self._time(shown), self._time_base
            self._output.mux(packet)

    def _time(self, number: int) -> int:
        """Of a frame; before the first and after the last, frames follow evenly."""
        last = len(self._times) - 1
        inside = min(max(number, 0), last)
        return self._times[inside] + (number - inside) * self._step


def url(path: Path) -> str:
    """The path as FFmpeg takes it."""
    return f"file:{path.absolute()}"  # after this prefix FFmpeg takes any name literally
