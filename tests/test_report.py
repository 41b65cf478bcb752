"""Pictures that a test leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pages import small_page
from PIL import Image

from a2video.report import draw_predictions


def test_a_video_that_has_gone_leaves_its_place_in_the_picture(tmp_path: Path) -> None:
    page = replace(small_page(tmp_path), class_names=("a", "b", "c"))  # video 3 of 5 has gone
    with Image.open(draw_predictions(page, tmp_path / "picture.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    gone, shown = pixels[len(pixels) // 3 : 2 * len(pixels) // 3, 600:], pixels[len(pixels) // 3 :, :600]
    assert (gone == 255).all(2).mean() > 0.8
    assert (shown == 255).all(2).mean() < 0.8
