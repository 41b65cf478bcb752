"""The worst mistakes as small moving pictures, cut from the videos as the network saw them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from a2video.data.transforms import Preprocessing
from a2video.data.views import load_test_views
from a2video.errors import InputError
from a2video.html_charts import data_uri
from a2video.results import Mistake

NUM_MISTAKES = 12
NUM_FRAMES = 8  # of each picture, at most
SIDE = 160  # pixels, at most
FRAME_MILLISECONDS = 180
MAX_PICTURE_BYTES = (
    5 << 20
)  # of all in a page, as text; the rest of one of 400 classes and 20 000 videos has less than 1 MiB

Pixels = NDArray[np.uint8]


def gallery(mistakes: Sequence[Mistake], preprocessing: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the template shows of each mistake; `why` instead of pictures where the video cannot be decoded any more.

    Args:
        mistakes: the worst first.
        preprocessing: see Preprocessing.to_dict; its one centre view is shown.
    """
    num_bytes = 0
    for mistake in mistakes:
        shown = {"path": mistake.path, "label": mistake.label, "ranked": mistake.ranked, "moving": None}
        try:
            moving, still, side = pictures(mistake.path, Preprocessing.from_dict(preprocessing).one_view)
        except InputError as error:
            yield shown | {"why": str(error).removeprefix(f"{mistake.path}: ")}
            continue
        num_bytes += len(moving) + len(still)
        if num_bytes > MAX_PICTURE_BYTES:
            yield shown | {"why": f"left out: pictures may have {MAX_PICTURE_BYTES >> 20} MiB of this page"}
        else:
            yield shown | {"moving": moving, "still": still, "side": side}


def pictures(path: str, one_view: Preprocessing) -> tuple[str, str, int]:
    """The centre view of a video as a moving picture, its middle frame, and their side in pixels.

    Raises:
        InputError: the video cannot be read.
    """
    try:
        clip = load_test_views(path, one_view)[0]  # (3, T, H, W)
    except RuntimeError as error:  # torch has no memory for it
        raise InputError(f"{path}: {error}") from error
    times = np.linspace(0, clip.shape[1] - 1, min(NUM_FRAMES, clip.shape[1])).round().astype(int)
    side = min(SIDE, clip.shape[-1])
    frames = [Image.fromarray(clip[:, time].permute(1, 2, 0).numpy()) for time in times]
    frames = [frame.resize((side, side), Image.Resampling.LANCZOS) for frame in frames]
    return _webp(frames), _webp([frames[len(frames) // 2]]), side


def _webp(frames: list[Image.Image]) -> str:
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MILLISECONDS, "loop": 0}
    frames[0].save(buffer, "WEBP", quality=75, **(options if len(frames) > 1 else {}))
    return data_uri(buffer.getvalue(), "webp")
