"""Clips with their labels on one sheet: frames side by side, or an animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, LINE = 12, 2, 20  # pixels: around everything, between frames, of a line of text
SMALLEST_SIDE = 112  # smaller frames are enlarged by a whole factor
WIDEST = 6000  # a wider sheet is made smaller by a whole factor
COLUMNS = 4  # of clips in an animation
FRAME_MILLISECONDS = 250
WHITE, BLACK, GREY = "white", "#1a202c", "#718096"


@dataclass(frozen=True)
class Row:
    """One clip: uint8 frames (T, H, W, 3), what is written in bold above it, and beside that."""

    frames: NDArray[np.uint8]
    title: str
    note: str


def draw_sheet(rows: Sequence[Row], header: Sequence[str]) -> Image.Image:
    """One row for each clip, its frames in the order of time."""
    num_frames, side = rows[0].frames.shape[:2]
    factor = max(1, round(SMALLEST_SIDE / side))
    shrink = -(-num_frames * side // WIDEST)
    shown = side * factor // shrink
    width = max(640, 2 * MARGIN + num_frames * (shown + GAP) - GAP)
    top = MARGIN + LINE * len(header)
    sheet = _sheet(width, top + len(rows) * (LINE + MARGIN + shown) + MARGIN, header)
    for number, row in enumerate(rows):
        y = top + number * (LINE + MARGIN + shown) + MARGIN
        _label(sheet, (MARGIN, y), width - 2 * MARGIN, row)
        for time, frame in enumerate(row.frames):
            sheet.paste(_scaled(frame, factor, shrink), (MARGIN + time * (shown + GAP), y + LINE))
    return sheet


def write_animation(rows: Sequence[Row], header: Sequence[str], path: Path) -> None:
    """A GIF in which all clips move; each of its frames is one of theirs."""
    num_frames, side = rows[0].frames.shape[:2]
    factor = max(1, round(2 * SMALLEST_SIDE / side))
    shown, num_columns = side * factor, min(COLUMNS, len(rows))
    width = max(640, 2 * MARGIN + num_columns * (shown + MARGIN) - MARGIN)
    top = MARGIN + LINE * len(header)
    height = top + -(-len(rows) // num_columns) * (2 * LINE + MARGIN + shown) + MARGIN
    images = []
    for time in range(num_frames):
        sheet = _sheet(width, height, header)
        end = MARGIN + (width - 2 * MARGIN) * (time + 1) // num_frames  # also keeps equal frames apart, which GIF joins
        ImageDraw.Draw(sheet).rectangle((MARGIN, 4, end, 6), fill=GREY)
        for number, row in enumerate(rows):
            down, across = divmod(number, num_columns)
            x, y = MARGIN + across * (shown + MARGIN), top + down * (2 * LINE + MARGIN + shown) + MARGIN
            _label(sheet, (x, y), shown, Row(row.frames, row.title, ""))
            _text(sheet, (x, y + LINE), shown, row.note, GREY)
            sheet.paste(_scaled(row.frames[time], factor, 1), (x, y + 2 * LINE))
        images.append(sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=FRAME_MILLISECONDS, loop=0)


def _sheet(width: int, height: int, header: Sequence[str]) -> Image.Image:
    sheet = Image.new("RGB", (width, height), WHITE)
    for number, line in enumerate(header):
        _text(sheet, (MARGIN, MARGIN + number * LINE), width - 2 * MARGIN, line, GREY)
    return sheet


def _label(sheet: Image.Image, place: tuple[int, int], width: int, row: Row) -> None:
    used = _text(sheet, place, width, row.title, BLACK, is_bold=True)
    if row.note and width - used > 40:
        _text(sheet, (place[0] + used + 10, place[1]), width - used - 10, row.note, GREY)


def _text(sheet: Image.Image, place: tuple[int, int], width: int, text: str, colour: str, is_bold: bool = False) -> int:
    """Writes at most `width` pixels of it, and returns how many."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", 13)
    shown = text
    while shown and font.getlength(shown) > width:
        shown = f"{shown.removesuffix('…')[:-1]}…" if len(shown) > 1 else ""
    ImageDraw.Draw(sheet).text(place, shown, colour, font)
    return round(font.getlength(shown))


def _scaled(frame: NDArray[np.uint8], factor: int, shrink: int) -> Image.Image:
    """Enlarged with its pixels as they are, or made smaller by averages."""
    large = Image.fromarray(frame.repeat(factor, 0).repeat(factor, 1))
    return large.reduce(shrink) if shrink > 1 else large
