"""The page of `a2video serve` as a user has it: a video chosen or dropped in a real browser, and what is shown then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, browser
from serving import MEGABYTES, Server, serving

from a2video.inference.classifier import VideoClassifier

HOSTILE_NAME = "<img src=x onerror=alert(1)>.mp4"


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(trained / "best.ckpt", tmp_path_factory.mktemp("server's own")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def video(small_data: Path) -> Path:
    return small_data / "test/left/0 ü.mp4"


def choose(chromium: Browser, server: Server, file: Path, **options: int | bool) -> None:
    chromium.open(server.url, **options)
    chromium.choose_files("#file", file)
    chromium.wait_for("!document.getElementById('result').hidden || !document.getElementById('error').hidden")


def text(chromium: Browser, selector: str) -> str:
    return chromium.run(f"document.querySelector({selector!r}).innerText")


@pytest.mark.parametrize("width", [1000, 360])
def test_a_video_gets_the_classifier_s_answer(
    chromium: Browser, server: Server, trained: Path, video: Path, width: int
) -> None:
    choose(chromium, server, video, width=width, touch=width == 360)
    expected = VideoClassifier.load(trained / "best.ckpt", "cpu")(video)
    names = chromium.run("[...document.querySelectorAll('#ranked .name')].map((e) => e.textContent)")
    numbers = chromium.run("[...document.querySelectorAll('#ranked data')].map((e) => Number(e.value))")
    assert names == [name for name, _ in expected.ranked]
    assert numbers == pytest.approx([number for _, number in expected.ranked], abs=1e-6)
    assert text(chromium, "#ranked data") == f"{expected.probability:.1%}"
    assert text(chromium, "#about") == "0 ü.mp4: 0.8 s, 24 frames"
    assert "best.ckpt" in text(chromium, "h1")
    assert "2 classes · 3 clips x 3 crops of 4 frames, stride 2" in text(chromium, "header")
    assert chromium.run("document.activeElement.id") == "result"
    chromium.wait_for("document.getElementById('preview').readyState > 1 || document.getElementById('preview').hidden")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.complaints == []
    assert all(url.startswith((server.url, "blob:", "data:")) for url in chromium.requested)
    assert server.files == []


def test_the_timeline_leads_to_its_moments(chromium: Browser, server: Server, video: Path) -> None:
    """Shown by the page's own function, for the network's own timeline of so short a video has one part."""
    choose(chromium, server, video)
    chromium.wait_for("document.getElementById('preview').readyState > 1")
    parts = [("<b>left</b>", 0.9, 0, 0.2), ("right", 0.8, 0.2, 0.5), ("<b>left</b>", 0.7, 0.5, 0.8)]
    names = ("label", "confidence", "start_seconds", "end_seconds")
    segments = [dict(zip(names, part, strict=True)) for part in parts]
    clips = [[0, 0.4], [0.2, 0.6], [0.4, 0.8]]
    answer = {"seconds": 0.8, "num_frames": 24, "ranked": [["right", 1]], "clips": clips, "segments": segments}
    chromium.run(f"shown.result(document.getElementById('file').files[0], {json.dumps(answer)})")
    about = chromium.run("document.getElementById('of-clips').innerText")
    assert about == "The mean of 3 clips of 0.4 s, spread evenly over the video."
    assert chromium.run("[...document.querySelectorAll('#segments button')].map((e) => e.innerText)") == [
        "0.0–0.2 s\n<b>left</b>\n90.0%",
        "0.2–0.5 s\nright\n80.0%",
        "0.5–0.8 s\n<b>left</b>\n70.0%",
    ]
    assert chromium.run("[...document.querySelectorAll('#strip button')].map((e) => e.className)") == [
        "c0",
        "c1",
        "c0",
    ]
    widths = chromium.run("[...document.querySelectorAll('#strip button')].map((e) => e.offsetWidth)")
    total = chromium.run("document.getElementById('strip').offsetWidth")
    assert widths == pytest.approx([total / 4, total * 3 / 8, total * 3 / 8], abs=1.5)
    chromium.wait_for("document.getElementById('preview').readyState > 1")
    for selector, moment in (("#strip button:nth-child(3)", 0.5), ("#segments li:nth-child(2) button", 0.2)):
        chromium.run(f"document.querySelector({selector!r}).click()")
        chromium.wait_for("!document.getElementById('preview').seeking")
        assert chromium.run("document.getElementById('preview').currentTime") == pytest.approx(moment, abs=1e-3)
        left = chromium.run("document.getElementById('playhead').style.left")
        assert float(left.rstrip("%")) == pytest.approx(100 * moment / 0.8, abs=0.5)
    assert chromium.run("document.querySelector('#segments .now').innerText").startswith("0.2–0.5 s")


def test_attention_is_shown_in_a_frame_of_its_own(chromium: Browser, server: Server, video: Path) -> None:
    choose(chromium, server, video)
    chromium.wait_for("document.getElementById('preview').readyState > 1")
    chromium.run("document.getElementById('attend').click()")
    chromium.wait_for("!document.getElementById('save').hidden")
    with chromium.frame("/frame"):
        chromium.wait_for("!!document.querySelector('.card')")
        assert chromium.run("document.querySelector('h1').innerText") == "0 ü.mp4"
        assert chromium.run("Promise.all([...document.images].map((e) => e.decode())).then((e) => e.length)") > 2
        assert chromium.run("document.getElementById('frame-label').textContent").startswith("frame ")  # its script
        assert chromium.run("origin") == "null"
        stolen = chromium.run("fetch('/').then(() => 'read', () => 'refused')")
        assert stolen == "refused"
    saved = chromium.run("fetch(document.getElementById('save').href).then((e) => e.text(), () => 'refused')")
    assert saved == "refused"  # the page itself may connect to the server alone; the link is for the reader
    assert server.files == []


def test_a_broken_file_and_a_hostile_name(chromium: Browser, server: Server, tmp_path: Path) -> None:
    broken = tmp_path / HOSTILE_NAME
    broken.write_text("no video")
    choose(chromium, server, broken)
    sentence = text(chromium, "#error")
    assert sentence.startswith(f"{HOSTILE_NAME}: no video found in its 8 bytes")
    assert chromium.run("document.images.length") == 0
    assert chromium.run("document.getElementById('result').hidden")
    assert all("422" in complaint for complaint in chromium.complaints)  # Chromium notes every such answer


def test_another_file_takes_the_place_of_the_first(
    chromium: Browser, server: Server, video: Path, tmp_path: Path
) -> None:
    choose(chromium, server, video)
    (tmp_path / "empty.mp4").touch()
    chromium.choose_files("#file", tmp_path / "empty.mp4")
    chromium.wait_for("!document.getElementById('error').hidden")
    assert text(chromium, "#error") == "empty.mp4: is empty: choose another file"
    assert chromium.run("document.getElementById('result').hidden")


def test_too_large_a_file_is_not_even_sent(chromium: Browser, server: Server, tmp_path: Path) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(MEGABYTES * 1_000_000 + 1)
    choose(chromium, server, tmp_path / "large.mp4")
    assert text(chromium, "#error") == "large.mp4: has 20 MB, and this server takes at most 20: shorten it"
    assert not any("classify" in url for url in chromium.requested)


def test_an_upload_can_be_cancelled(chromium: Browser, server: Server, video: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(video.read_bytes() + bytes(MEGABYTES * 900_000))
    chromium.open(server.url)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    chromium.call("Network.emulateNetworkConditions", **slow)
    chromium.choose_files("#file", large)
    chromium.wait_for("document.getElementById('progress').value > 0")
    assert text(chromium, "#status").startswith("Uploading: ")
    assert chromium.run("document.getElementById('file').disabled")
    chromium.run("document.getElementById('cancel').click()")
    chromium.call("Network.emulateNetworkConditions", **slow | {"uploadThroughput": -1})
    assert chromium.run("document.getElementById('activity').offsetHeight") == 0
    server.wait_until_empty()
    chromium.choose_files("#file", video)
    chromium.wait_for("!document.getElementById('result').hidden")


def test_dropping(chromium: Browser, server: Server, video: Path) -> None:
    chromium.open(server.url)
    data = {"items": [], "files": [str(video)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        chromium.call("Input.dispatchDragEvent", type=kind, x=500, y=600, data=data)
    chromium.wait_for("!document.getElementById('result').hidden")
    assert text(chromium, "#about").startswith("0 ü.mp4: ")
