"""Which encoder writes the videos and how, and whether that works here at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from a2video.data.readers import open_video
from a2video.errors import InputError

# Containers that keep the time of each frame.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
# Near-transparent quality where the user asks for none, one thread, no cuts of the encoder's own, quiet.
CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "medium", "sc_threshold": "0"},
    "libx265": {"crf": "20", "preset": "medium", "x265-params": "scenecut=0:open-gop=0:pools=1:log-level=error"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4"},
    "mpeg4": {"flags": "+cgop+qscale", "global_quality": "354", "sc_threshold": "1000000000"},  # quantiser 3
    "libsvtav1": {"crf": "24", "preset": "8", "svtav1-params": "scd=0:lp=1"},
}
MPEG4_TIME_BASE = Fraction(1, 60000)  # MPEG-4 part 2 takes no denominator beyond 65535
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
        return {"flags": "+cgop", "g": str(self.gop), "keyint_min": str(self.gop)} | options


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
    base = Fraction(1, 25)
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs, av.open(url(path), "w") as output:
            stream = add_stream(output, settings, (256, 256), 1 / base, base)
            for number in range(3):
                frame = VideoFrame(256, 256, settings.pixel_format)
                frame.pts, frame.time_base = number, base
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            unknown = list(stream.codec_context.options)  # those that the encoder took are gone
        with open_video(path) as video:
            video.get_frames([0, 2])
    except av.FFmpegError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    finally:
        av.logging.set_level(None)
        path.unlink(missing_ok=True)
    for _, _, message in logs:
        if "option" in message.lower():
            return message.strip()
    return f"there is no option {' and no option '.join(unknown)}" if unknown else None


def add_stream(
    output: OutputContainer, settings: Settings, size: tuple[int, int], rate: Fraction, base: Fraction
) -> VideoStream:
    """The encoder: `size` is (width, height), `rate` frames per second, `base` seconds per unit of time."""
    if settings.codec == "mpeg4" and base.denominator > MPEG4_TIME_BASE.denominator:
        base = MPEG4_TIME_BASE
    rate = min(max(rate, Fraction(1)), Fraction(MAX_FRAMES_PER_SECOND))
    stream = output.add_stream(settings.codec, rate=rate, options=settings.encoder_options(), time_base=base)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = settings.pixel_format
    stream.codec_context.thread_count = 1
    return stream


def url(path: Path) -> str:
    """The path as FFmpeg takes it."""
    return f"file:{path.absolute()}"  # after this prefix FFmpeg takes any name literally
