"""The page of `a2video attend` in a real browser: it plays, stops and moves, on a phone, in the dark and on paper."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from attending import CELL, CELLS, SIDE, Looker, bright_cells, looking
from chromium import Browser, browser
from PIL import Image

from a2video.inference.attention_page import write_attention_page

SHOWN = "getComputedStyle(document.querySelector('.heat')).objectPosition"
FRAMES = "getComputedStyle(document.querySelector('.maps .film'), '::before').backgroundPosition"
LABEL = "document.getElementById('frame-label').textContent"
NEXT_LABEL = (
    f"new Promise((done) => new MutationObserver((_, o) => {{ o.disconnect(); done({LABEL}); }})"
    ".observe(document.getElementById('frame-label'), {childList: true}))"
)
LABEL_LATER = f"new Promise((done) => setTimeout(() => done({LABEL}), 400))"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a page")
    video = bright_cells(folder / "<script>alert(1)<!-- \"'>&.mp4")
    return write_attention_page(looking(Looker()), video, folder / "page.html", checkpoint="<b>/best.ckpt")


def move_to(chromium: Browser, number: int) -> None:
    chromium.run(
        f"(() => {{ const s = document.getElementById('frame'); s.value = {number};"
        " s.dispatchEvent(new Event('input')); })()"
    )


@pytest.mark.parametrize("width", [1000, 360])
def test_it_is_shown_whole_and_asks_for_nothing(chromium: Browser, page: Path, width: int) -> None:
    chromium.open(page, width, dark=True, touch=width == 360)
    images = chromium.run(
        "Promise.all([...document.images].map((e) => e.decode().then(() => [e.naturalWidth, e.clientWidth, e.alt])))"
    )
    assert [image[0] for image in images] == [128, *[56 * len(CELLS)] * 6]
    assert all(width > 60 and alternative for _, width, alternative in images)
    assert chromium.complaints == []
    assert [url for url in chromium.requested if not url.startswith("data:")] == [page.as_uri()]
    sizes = chromium.run("[document.documentElement.scrollWidth, window.innerWidth]")
    assert sizes == [width - 15 * (width == 1000), width]  # the scroll bar of a desktop
    assert chromium.run("document.querySelector('h1').textContent") == "<script>alert(1)<!-- \"'>&.mp4"
    assert chromium.run("document.scripts.length") == 1
    assert max(chromium.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) < 40


def test_it_plays_and_stops(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    assert chromium.run("document.getElementById('play').textContent") == "Pause"
    seen = [chromium.run(NEXT_LABEL) for _ in range(3)]
    assert len(set(seen)) == 3
    move_to(chromium, 3)
    assert chromium.run("document.getElementById('play').textContent") == "Play"
    for number, position, label in (
        (0, "0%", "frame 1 of 4, 0.40 s"),
        (1, "33.3333%", "frame 2 of 4, 0.60 s"),
        (3, "100%", "frame 4 of 4, 1.00 s"),
    ):
        move_to(chromium, number)
        assert chromium.run(f"[{SHOWN}, {FRAMES}, {LABEL}]") == [f"{position} 0px"] * 2 + [label]
    assert chromium.run(LABEL_LATER) == "frame 4 of 4, 1.00 s"
    chromium.run("document.getElementById('play').click()")
    assert chromium.run(NEXT_LABEL) == "frame 1 of 4, 0.40 s"


def test_frames_and_heat_lie_upon_each_other(chromium: Browser, page: Path) -> None:
    """As pixels on the screen: where a map is hot, the frame below is the bright cell."""
    chromium.open(page)
    which = chromium.run(
        "[...document.querySelectorAll('.heat')].findIndex((e) => e.alt.startsWith('Where descriptor 1 '))"
    )
    for number, (row, column) in enumerate(CELLS):
        move_to(chromium, number)
        box = chromium.run(
            f"(() => {{ const e = document.querySelectorAll('.heat')[{which}]; e.scrollIntoView();"
            " const b = e.parentElement.getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
        )
        pixels = np.asarray(Image.open(io.BytesIO(chromium.picture(page_height=False))).convert("RGB"))
        x, y, side = (round(value) for value in box)
        film = pixels[y : y + side, x : x + side].astype(int)
        redness = film[..., 0] - film[..., 2]
        down, right = (SIDE * place / side for place in divmod(int(redness.argmax()), side))
        assert (round(down / CELL), round(right / CELL)) == (row, column)
        top, left = (round(CELL * place * side / SIDE) for place in (row, column))
        assert film[top, left].sum() > film[top // 2, left // 2].sum() + 100  # the frame below is bright there


def test_all_frames_side_by_side(chromium: Browser, page: Path) -> None:
    chromium.open(page, 360, touch=True)
    shape = "(({width, height}) => width / height)(document.querySelector('.maps .film').getBoundingClientRect())"
    assert chromium.run(shape) == pytest.approx(1)
    chromium.run("document.getElementById('strips').click()")
    assert chromium.run(shape) == pytest.approx(len(CELLS), abs=0.05)
    assert chromium.run("document.documentElement.scrollWidth") == 360


def test_nothing_moves_for_those_who_want_it_still(chromium: Browser, page: Path) -> None:
    chromium.open(page, still=True)
    assert chromium.run("document.getElementById('play').textContent") == "Play"
    assert chromium.run(LABEL_LATER) == "frame 3 of 4, 0.80 s"


def test_paper_shows_all_frames(chromium: Browser, page: Path) -> None:
    chromium.open(page, dark=True)
    assert chromium.pdf().startswith(b"%PDF-")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.run("getComputedStyle(document.querySelector('.film')).aspectRatio") == "4 / 1"
    assert chromium.run("document.querySelector('.player').offsetHeight") == 0
    assert chromium.complaints == []
