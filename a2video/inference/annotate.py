"""A copy of a video with its most probable classes written on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from a2video.atomic import write_whole
from a2video.data.readers import Frames, VideoReader, open_video
from a2video.data.views import reading
from a2video.errors import InputError
from a2video.inference.timeline import Timeline

TOP = 3  # classes written
TICKS = 90_000  # in a second, of the copy's times
OPAQUE = 0.6  # of the box behind the text
BAR = (76, 155, 232)
BEST, OTHER = (255, 255, 255), (200, 205, 212)


def annotate(timeline: Timeline, out: Path, on_progress: Callable[[float], None] | None = None) -> Path:
    """Writes the video of a timeline with the TOP classes of each moment drawn on it, as MP4 (H.264), without sound.

    Frames keep their size (but for an odd last row or column) and their times; one is in memory at a time.

    Args:
        timeline: of the video, which is read again.
        out: ends in .mp4.
        on_progress: called with the share of the video that is done, in [0, 1].

    Raises:
        VideoError: the video cannot be read.
        InputError: `out` is no .mp4, is the video itself, or cannot be written.
    """
    check_name(out)
    if out.exists() and out.samefile(timeline.path):
        raise InputError(f"{out} is the video itself, and would be replaced: choose another name")
    with reading(timeline.path), open_video(timeline.path) as video:
        return write_whole(out, lambda part: _write(video, timeline, part, on_progress))


def check_name(out: Path) -> None:
    """Raises InputError for a file that is no .mp4."""
    if out.suffix != ".mp4":
        raise InputError(f"{out}: the annotated video is a file that ends in .mp4")


def _write(video: VideoReader, timeline: Timeline, path: Path, on_progress: Callable[[float], None] | None) -> None:
    copy: _Copy | None = None

    def take(place: int, frames: Frames) -> None:
        nonlocal copy
        if place == 0 or copy is None:
            if copy is not None:  # decoding starts over
                copy.close()
            copy = _Copy(path, video, frames.shape[1], frames.shape[2])
        for moment, frame in zip(video.times[place : place + len(frames)], frames, strict=True):
            copy.add(frame, float(moment), timeline)
        if on_progress is not None:
            on_progress((place + len(frames)) / len(video))

    try:
        video.read(range(len(video)), take)
    finally:
        if copy is not None:
            copy.close()


class _Copy:
    """The file that is written."""

    def __init__(self, path: Path, video: VideoReader, height: int, width: int) -> None:
        self.height, self.width = max(2, height - height % 2), max(2, width - width % 2)  # what 4:2:0 can store
        self.container = av.open(str(path), "w", format="mp4")
        rate = Fraction(video.fps or 1).limit_denominator(1001)
        self.stream = self.container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
        self.stream.width, self.stream.height, self.stream.pix_fmt = self.width, self.height, "yuv420p"
        self.stream.codec_context.time_base = self.stream.time_base = Fraction(1, TICKS)
        self.slot = -1
        self.box = np.zeros((0, 0, 4), np.float32)

    def add(self, frame: Frames, moment: float, timeline: Timeline) -> None:
        """Writes one frame (H, W, 3)."""
        slot = timeline.slot_at(moment)
        if slot != self.slot:
            probs = timeline.probs[slot]
            best = np.argsort(-probs, kind="stable")[:TOP]
            self.box = draw_box([(timeline.class_names[i], float(probs[i])) for i in best], self.height, self.width)
            self.slot = slot
        padded = np.pad(frame, ((0, max(0, 2 - len(frame))), (0, max(0, 2 - frame.shape[1])), (0, 0)), "edge")
        pixels = padded[: self.height, : self.width].copy()
        part = pixels[: len(self.box), : self.box.shape[1]]
        alpha = self.box[..., 3:]
        part[:] = (part * (1 - alpha) + self.box[..., :3] * alpha + 0.5).astype(np.uint8)
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        image.pts, image.time_base = round(moment * TICKS), Fraction(1, TICKS)
        self.container.mux(self.stream.encode(image))

    def close(self) -> None:
        """Writes what the encoder still has."""
        self.container.mux(self.stream.encode())
        self.container.close()


def draw_box(ranked: Sequence[tuple[str, float]], height: int, width: int) -> NDArray[np.float32]:
    """Classes, probabilities and bars on a dark box for a frame's upper left corner.

    Args:
        ranked: (class name, probability), the most probable first.
        height: of the frame, which the text's size follows.
        width: of the frame, which the box does not exceed.

    Returns:
        Red, green, blue in [0, 255] and opacity in [0, 1]: (h, w, 4), h <= height and w <= width.
    """
    size = max(10, min(height // 18, width // 18))
    font = ImageFont.load_default(size)
    line, margin = round(size * 1.5), size // 2
    lines = [f"{probability:4.0%}  {label}" for label, probability in ranked]
    wide = min(width, 2 * margin + max(round(font.getlength(text)) for text in lines))
    high = min(height, line * len(lines) + margin)
    image = Image.new("RGB", (wide, high), "black")
    canvas = ImageDraw.Draw(image)
    for number, (text, (_, probability)) in enumerate(zip(lines, ranked, strict=True)):
        top = margin // 2 + number * line
        canvas.text((margin, top), text, fill=OTHER if number else BEST, font=font)
        bar = max(1, round((wide - 2 * margin) * probability))
        thickness = max(1, size // 8)
        canvas.rectangle((margin, top + line - 2 * thickness, margin + bar, top + line - thickness), fill=BAR)
    colours = np.asarray(image, np.float32)
    alpha = np.maximum(OPAQUE, colours.max(2, keepdims=True) / 255)
    return np.concatenate([colours, alpha], 2)
