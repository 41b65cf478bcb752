"""report.html as a reader has it: in a real browser, with mouse, fingers and keys, on a phone and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, browser
from pages import HOSTILE, SCORED_AT, large_page, small_page

from a2video.html_report import write_html_report

SMALL_NAMES = [name.replace("\x00", "\ufffd") for name in HOSTILE]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def small(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a page")
    return write_html_report(small_page(folder), folder / "report.html", SCORED_AT)


@pytest.fixture(scope="module")
def large(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_html_report(large_page(), tmp_path_factory.mktemp("page") / "report.html", SCORED_AT)


def names_of_rows(chromium: Browser) -> list[str]:
    return chromium.run(
        "[...document.querySelectorAll('#classes tbody tr:not([hidden]) th')].map((e) => e.textContent)"
    )


def readout(chromium: Browser) -> str:
    return chromium.run("document.getElementById('cell').textContent")


def middle_of(chromium: Browser, selector: str, down: float = 0.5, right: float = 0.5) -> tuple[float, float]:
    """A point of an element, which comes into view."""
    found = chromium.run(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
        " const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    x, y, width, height = found
    return x + right * width, y + down * height


def cell_of_400(chromium: Browser, truth: int, predicted: int) -> tuple[float, float]:
    return middle_of(chromium, "#matrix img", (truth + 0.5) / 400, (predicted + 0.5) / 400)


@pytest.mark.parametrize("width", [1000, 360])
@pytest.mark.parametrize("name", ["small", "large"])
def test_it_is_shown_whole_and_asks_for_nothing(
    chromium: Browser, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    page = request.getfixturevalue(name)
    chromium.open(page, width, touch=width == 360)
    images = chromium.run(
        "Promise.all([...document.images].map((e) => e.decode().then(() => [e.naturalWidth, e.complete, e.alt])))"
    )
    assert len(images) == {"small": 2, "large": 1}[name]
    for natural_width, is_complete, alternative in images:
        assert natural_width == {"small": 24, "large": 400}[name]
        assert is_complete
        assert alternative
    assert chromium.complaints == []
    assert [url for url in chromium.requested if not url.startswith("data:")] == [page.as_uri()]
    sizes = chromium.run("[document.documentElement.scrollWidth, window.innerWidth]")
    assert sizes == [width - 15 * (width == 1000), width]  # the scroll bar of a desktop
    assert chromium.run("[...document.querySelectorAll('.script-only')].every((e) => e.offsetHeight > 0)")


def test_names_and_paths_are_text(chromium: Browser, small: Path) -> None:
    chromium.open(small)
    assert names_of_rows(chromium) == SMALL_NAMES
    assert chromium.run("document.scripts.length") == 2
    assert chromium.run("document.querySelectorAll('i, b, img[onerror], [onclick]').length") == 0
    assert "<i>5<i>.mp4" in chromium.run("document.body.innerText")
    assert chromium.run("document.querySelectorAll('h1').length") == 1
    for place, name in enumerate(SMALL_NAMES):
        chromium.mouse(*middle_of(chromium, f'[data-cell="{place},0"]'))
        assert readout(chromium).startswith(f"True {name}, predicted {SMALL_NAMES[0]}: ")
    assert chromium.complaints == []


@pytest.mark.parametrize(
    ("attempt", "directive"),
    [
        ("new Image().src = 'http://127.0.0.1:9/a.png'", "img-src"),
        ("fetch('http://127.0.0.1:9/').catch(() => 0)", "connect-src"),
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: 'stolen = 1'}))",
            "script-src-elem",
        ),
        ("document.body.setAttribute('onclick', 'stolen = 1')", "script-src-attr"),
        ("document.body.setAttribute('style', 'color: red')", "style-src-attr"),
    ],
)
def test_the_policy_stops_what_is_not_the_page_s_own(
    chromium: Browser, small: Path, attempt: str, directive: str
) -> None:
    chromium.open(small)
    clicked = "document.body.click(); setTimeout(resolve, 20000, 'none')"
    heard = "document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective))"
    found = chromium.run(f"new Promise((resolve) => {{ {heard}; {attempt}; {clicked}; }})")
    assert found == directive
    assert chromium.run("typeof stolen") == "undefined"


def test_sorting_and_searching(chromium: Browser, small: Path, large: Path) -> None:
    chromium.open(small)
    chromium.run("document.querySelector('[data-key=accuracy]').click()")  # 1/2, 1/3, and the class without a video
    assert names_of_rows(chromium) == [SMALL_NAMES[1], SMALL_NAMES[0], SMALL_NAMES[2]]
    assert chromium.run("document.querySelector('[aria-sort=ascending]').innerText") == "Video top-1"
    chromium.run("document.querySelector('[data-key=accuracy]').click()")
    assert names_of_rows(chromium) == [SMALL_NAMES[0], SMALL_NAMES[1], SMALL_NAMES[2]]
    chromium.run("document.querySelector('[data-key=count]').click()")
    assert names_of_rows(chromium) == [SMALL_NAMES[1], SMALL_NAMES[0], SMALL_NAMES[2]]
    assert chromium.run("document.querySelectorAll('[aria-sort=none]').length") == 2
    chromium.open(large)
    chromium.run("document.getElementById('search').focus()")
    chromium.call("Input.insertText", text="CLASS 12")
    assert names_of_rows(chromium) == [f"class 12{number}" for number in range(10)]
    assert chromium.run("document.getElementById('num-shown').value") == "10 of 400"
    chromium.run("document.querySelector('[data-key=accuracy]').click()")
    assert names_of_rows(chromium)[:2] == ["class 120", "class 121"]
    chromium.run("document.querySelector('[data-key=name]').click()")
    chromium.run("document.querySelector('[data-key=name]').click()")
    assert names_of_rows(chromium)[0] == "class 129"
    chromium.call("Input.insertText", text="?")
    assert names_of_rows(chromium) == []
    assert chromium.complaints == []


def test_the_mouse_shows_the_cell_under_it(chromium: Browser, small: Path, large: Path) -> None:
    chromium.open(small)
    chromium.mouse(*middle_of(chromium, '[data-cell="1,2"]'))
    assert readout(chromium) == f"True {SMALL_NAMES[1]}, predicted {SMALL_NAMES[2]}: 1 of its 3 videos (33.3%)"
    assert chromium.run("document.querySelector('.current').dataset.cell") == "1,2"
    chromium.open(large)
    chromium.mouse(*cell_of_400(chromium, 120, 7))
    assert readout(chromium) == "True class 120, predicted class 007: 1 of its 2 videos (50.0%)"
    assert "class 007 1, class 120 1" in chromium.run("document.getElementById('others').textContent")
    x, y = cell_of_400(chromium, 250, 250)
    chromium.mouse(x, y)
    assert readout(chromium) == "True class 250, predicted class 250: 1 of its 2 videos (50.0%)"
    chromium.mouse(x + 2.5, y - 2.5)  # nearer to class 250's or 249's own cell than a finger is thick
    assert re.match(r"True class (25\d), predicted class \1: ", readout(chromium))
    chromium.mouse(*cell_of_400(chromium, 355, 200))  # nothing far and wide
    assert readout(chromium) == "True class 355, predicted class 200: 0 of its 2 videos (0.0%)"
    band = chromium.run("document.querySelector('.band.row').style.top")
    assert band == "88.75%"


def test_fingers_and_the_large_picture(chromium: Browser, large: Path) -> None:
    chromium.open(large, 360, touch=True)
    chromium.tap(*cell_of_400(chromium, 390, 7))
    assert readout(chromium) == "True class 390, predicted class 007: 1 of its 2 videos (50.0%)"
    chromium.run("document.getElementById('enlarge').click()")
    assert chromium.run("document.querySelector('#matrix img').clientWidth") >= 1990
    assert chromium.run("document.documentElement.scrollWidth") == 360
    assert chromium.run("document.getElementById('enlarge').ariaPressed") == "true"
    chromium.run("document.getElementById('matrix-box').scrollTo(0, 0)")
    chromium.run("document.getElementById('matrix-box').scrollIntoView()")
    left, top = chromium.run(
        "(({left, top}) => [left, top])(document.querySelector('#matrix img').getBoundingClientRect())"
    )
    chromium.tap(left + 1 + 5 * 7.5, top + 1 + 5 * 20.5)
    assert readout(chromium).startswith("True class 020, predicted class 007: 1")
    assert chromium.complaints == []


def test_keys_move_from_cell_to_cell(chromium: Browser, large: Path) -> None:
    chromium.open(large)
    chromium.run("document.getElementById('matrix').focus()")
    for key, code, shift in (("ArrowDown", 40, False), ("ArrowDown", 40, True), ("ArrowRight", 39, False)):
        chromium.press(key, code, shift)
    assert readout(chromium).startswith("True class 010, predicted class 001: 0 of its 2")
    for _ in range(3):
        chromium.press("ArrowLeft", 37)
    assert readout(chromium).startswith("True class 010, predicted class 000:")
    chromium.run("document.querySelector('[data-key=name]').focus()")
    chromium.press("Tab", 9)
    assert chromium.run("document.activeElement.dataset.key") == "accuracy"


def test_still_pictures_for_those_who_want_them(chromium: Browser, small: Path) -> None:
    chromium.open(small)
    source = "document.querySelector('.mistake img').currentSrc"
    moving, still = chromium.run(f"[{source}, document.querySelector('.mistake source').srcset]")
    assert moving != still
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    frames = "(seen) => requestAnimationFrame(() => requestAnimationFrame(seen))"
    assert chromium.run(f"new Promise({frames}).then(() => {source})") == still


def test_dark_and_light(chromium: Browser, small: Path) -> None:
    brightness = "(() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))()"
    chromium.open(small, dark=True)
    assert max(chromium.run(brightness)) < 40
    chromium.open(small)
    assert min(chromium.run(brightness)) > 230


def test_paper(chromium: Browser, small: Path, large: Path) -> None:
    chromium.open(large, dark=True)
    pdf = chromium.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 30  # all 400 classes
    chromium.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"
    assert chromium.run("[...document.querySelectorAll('.script-only')].every((e) => e.offsetHeight === 0)")
    chromium.open(small)
    assert chromium.pdf().startswith(b"%PDF-")
    assert chromium.complaints == []
