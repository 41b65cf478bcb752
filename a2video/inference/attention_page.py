"""The page of `a2video attend`: what double attention blocks collect and hand out, over the frames of a clip."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from a2video.atomic import write_text
from a2video.errors import InputError
from a2video.html_charts import data_uri
from a2video.html_page import render, tail
from a2video.inference.attention import Attention, BlockAttention, attention
from a2video.inference.classifier import Ranked, VideoClassifier

NUM_CLASSES = 5
MAX_TOP = 64  # descriptors of each block: some 10 MB of a2net_resnet50
MAX_FRAMES = 32  # of the clip in the page
FRAME_MILLISECONDS = 250
MAX_SIDE = 224  # pixels of a frame
HEAT_SIDES = (56, 112)  # pixels of a map, at least and at most; the browser enlarges it further
SMOOTH = 4  # of them for each cell, between these
MIN_SCALE = 2.0  # times the even share that full colour stands for, at least: nearly even maps must look even
OPACITY = 0.9  # of full colour
COLOURS = np.array(  # from none to full, every step brighter
    [(61, 20, 110), (114, 31, 129), (167, 49, 121), (217, 70, 98), (245, 112, 72), (252, 166, 54), (250, 222, 92)]
)

Pixels = NDArray[np.uint8]


def write_attention_page(
    classifier: VideoClassifier,
    path: str | Path,
    out: Path,
    top: int = 4,
    at_seconds: float | None = None,
    checkpoint: str | Path = "",
) -> Path:
    """Looks at the attention of a network on a video, and writes the page whole or not at all.

    Args:
        classifier: see attention().
        path: of the video.
        out: of the page; ends in .html.
        top: descriptors shown of each block, the most used ones.
        at_seconds: see attention().
        checkpoint: what the page calls the network.

    Raises:
        InputError: see attention(); or the page cannot be written there.
        VideoError: the video cannot be read.
    """
    check_page(out, top)
    return write_text(out, attention_html(attention(classifier, path, at_seconds), top, checkpoint))


def check_page(out: Path, top: int) -> None:
    """Refuses what no page can be made of, before anything is computed.

    Raises:
        InputError: `out` does not end in .html, or `top` is out of range.
    """
    if out.suffix != ".html":
        raise InputError(f"--out {out}: the page is a file that ends in .html")
    _check_top(top)


def _check_top(top: int) -> None:
    if not 1 <= top <= MAX_TOP:
        raise InputError(f"--top {top}: a page shows 1 to {MAX_TOP} descriptors of each block")


def attention_html(found: Attention, top: int = 4, checkpoint: str | Path = "") -> str:
    """The page, which needs no network and escapes all names; only the last parts of paths are in it.

    Args:
        found: what attention() gave.
        top: descriptors shown of each block, from 1 to MAX_TOP; all of a block that has fewer.
        checkpoint: what the page calls the network.

    Raises:
        InputError: `top` is out of range.
    """
    _check_top(top)
    times = _shown_times(found.clip.shape[1])
    frames = [_frame(found.clip[:, time]) for time in times]
    side = frames[0].width
    strip = Image.new("RGB", (side * len(frames), side))
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * side, 0))
    of_clip, of_video = found.of_clip, found.of_video
    return render(
        "attention.html.jinja",
        ["report.css", "attention.css"],
        ["attention.js"],
        more_css=_css(strip, len(frames)),
        name=Path(found.path).name,
        checkpoint=tail(checkpoint),
        seconds=[found.seconds[time] for time in times],
        num_frames=found.clip.shape[1],
        of_clip=of_clip,
        predictions=[
            ("This clip", of_clip.ranked[:NUM_CLASSES]),
            *_of_video(of_clip.ranked, of_video.ranked, len(of_video.clips)),
        ],
        scale=_scale(),
        min_scale=f"{MIN_SCALE:g}",
        milliseconds=FRAME_MILLISECONDS,
        blocks=[_block(block, top, found.clip, times) for block in found.blocks],
    )


def _of_video(clip: Ranked, video: Ranked, num_clips: int) -> list[tuple[str, Ranked]]:
    """The prediction of the whole video, where it is another one."""
    name = f"The whole video ({num_clips} clip{'s' if num_clips > 1 else ''})"
    return [] if clip == video else [(name, video[:NUM_CLASSES])]


def _shown_times(num_frames: int) -> list[int]:
    times: list[int] = np.linspace(0, num_frames - 1, min(MAX_FRAMES, num_frames)).round().astype(int).tolist()
    return times


def _frame(pixels: Tensor) -> Image.Image:
    """uint8 (3, H, W), a square, as a picture of at most MAX_SIDE pixels."""
    side = min(MAX_SIDE, pixels.shape[-1])
    return Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.LANCZOS)


def _css(strip: Image.Image, num_frames: int) -> str:
    """The frames, once for all pictures, and how many there are."""
    return (
        f":root {{ --n: {num_frames}; --last: {max(num_frames - 1, 1)}; --k: {num_frames // 2}; }}\n"
        f".film::before {{ background-image: url({_uri(strip, 'WEBP', quality=82)}); }}\n"
    )


def _block(block: BlockAttention, top: int, clip: Tensor, times: list[int]) -> dict[str, Any]:
    """What the template shows of a block."""
    usage, order = block.usage.sort(descending=True, stable=True)
    descriptors = []
    for share, number in zip(usage[:top].tolist(), order[:top].tolist(), strict=True):
        gather, distribute = (
            _map(maps[number], float(maps.mean()), clip, times) for maps in (block.gather, block.distribute)
        )
        descriptors.append(
            {
                "number": number,
                "share": share,
                "times_even": multiple(share * len(usage)),
                "gather": gather,
                "distribute": distribute,
                "half": f"{_share_that_holds_half(block.gather[number]):.2%}",
            }
        )
    return {
        "name": block.name,
        "num_descriptors": len(usage),
        "size": tuple(block.gather.shape[1:]),
        "num_shown": len(descriptors),
        "share": float(usage[:top].sum()),
        "even": 1 / len(usage),
        "descriptors": descriptors,
    }


def _map(weights: Tensor, even: float, clip: Tensor, times: list[int]) -> dict[str, Any]:
    """One map (T', H', W') over a clip: its picture, what full colour stands for, and the weight at each time."""
    scale = max(float(weights.max()) / even, MIN_SCALE)
    over_time = weights.mean((1, 2)) / even
    return {
        "heat": _heat_strip(heat(weights / (scale * even), *clip.shape[1:3])[times]),
        "scale": multiple(scale),
        "most": float(weights.max()),
        "over_time": over_time.tolist(),
        "highest": max(float(over_time.max()), MIN_SCALE),
    }


def _share_that_holds_half(gather: Tensor) -> float:
    """The smallest share of positions that half of the weight lies on."""
    shares = gather.flatten().sort(descending=True).values.cumsum(0) / gather.sum()
    return (int((shares < 0.5).sum()) + 1) / len(shares)


def multiple(value: float) -> str:
    """As shown: 2.4, 505."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def heat(values: Tensor, num_frames: int, num_pixels: int) -> Tensor:
    """A map (T', H', W') over the frames of a clip (T, side, side): linear in space, repeated in time.

    Cell i of a map with one cell for every 8 pixels is drawn around pixel 8i, counted from 0: that is the centre of
    what it sees in a network of odd, evenly padded kernels, as all of a2video.models are.

    Args:
        values: in [0, 1].
        num_frames: of the clip (T).
        num_pixels: side of the clip's frames, which the map has become smaller than.
    """
    smallest, largest = HEAT_SIDES
    side = max(smallest, min(largest, SMOOTH * max(values.shape[1:])))
    pixels = (torch.arange(side) + 0.5) * num_pixels / side - 0.5
    for dim in (1, 2):
        last = values.shape[dim] - 1
        cells = (pixels * values.shape[dim] / num_pixels).clamp(0, last)
        before = cells.long()
        after = (before + 1).clamp(max=last)
        parts = (cells - before).view(-1, 1) if dim == 1 else cells - before
        values = values.index_select(dim, before).lerp(values.index_select(dim, after), parts)
    return values[torch.arange(num_frames) * len(values) // num_frames]


def _heat_strip(values: Tensor) -> str:
    """Values (T, side, side) in [0, 1] as one picture, frame beside frame."""
    flat = values.permute(1, 0, 2).flatten(1).numpy()  # (side, T * side)
    return _uri(Image.fromarray(coloured(flat), "RGBA"), "WEBP", quality=90, alpha_quality=90)


def coloured(values: NDArray[np.floating]) -> Pixels:
    """Values in [0, 1] of any shape -> uint8 RGBA (..., 4): nothing to be seen of 0, bright yellow for 1."""
    values = np.clip(values, 0, 1)
    steps = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, steps, COLOURS[:, channel]) for channel in range(3)]
    return np.stack([*channels, 255 * OPACITY * np.sqrt(values)], -1).round().astype(np.uint8)


def _scale() -> str:
    return _uri(Image.fromarray(coloured(np.linspace(0, 1, 128)[None].repeat(8, 0)), "RGBA"), "PNG")


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), kind.lower())
