"""Scores whose report.html the tests look at, and what is in a page of ours."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from conftest import moving_square, write_video
from made_scores import made_scores

from a2video.data.transforms import Preprocessing
from a2video.scores import Scores

SCORED_AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script></style><h1>&amp;\u202e\x00")
PROBS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the predicted class, in the order of the videos

VOID = {"meta", "link", "img", "source", "input", "rect", "line", "circle", "polyline"}


class Page(HTMLParser):
    """What is in a page; fails where elements do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.numbers: dict[str, float] = {}
        self.images: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data" and "id" in given:
            assert given["id"] not in self.numbers
            self.numbers[given["id"]] = float(given["value"])
        if tag == "img":
            self.images.append(given["src"])

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[self.open[-1]] = data  # the last script is the one that runs
        else:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def assert_policy_names_its_own(page: Page) -> None:
    """The page may run its own script and use its own style, and nothing else."""
    (content,) = [value for _, _, value in page.attributes if value.startswith("default-src")]
    policy = dict(rule.split(" ", 1) for rule in content.split("; "))
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
    nothing = "'none'"
    assert policy == {"default-src": nothing, "img-src": "data:", "base-uri": nothing, "form-action": nothing}


def small_page(folder: Path) -> Scores:
    """Three classes with hostile names: five videos scored, one damaged, one that has gone after the test.

    Videos 0 to 4 have labels 0, 0, 1, 1, 1 and are taken for 0, 1, 1, 0, 2; 3 has gone.
    """
    probs = []
    for predicted, share in zip((0, 1, 1, 0, 2), PROBS, strict=True):
        vector = np.full(3, (1 - share) / 2)
        vector[predicted] = share
        probs.append([vector.tolist()] * 2)
    reason = "<b onclick=alert(3)>no frame</b>"
    scores = made_scores([*probs, []], [0, 0, 1, 1, 1, 2], failed={5: f"v5.mp4: {reason}"}, names=HOSTILE)
    paths = [str(folder / f"<i>{number}<i>.mp4") for number in range(6)]
    for number, path in enumerate(paths):
        if number != 3:
            write_video(Path(path), moving_square(1, seed=number))
    about = replace(
        scores.about, preprocessing=Preprocessing(4, 2, 32, 24, 2, 1).to_dict(), checkpoint=f"'><b>{'x' * 90}.ckpt"
    )
    return replace(scores, paths=tuple(paths), about=about)


def large_page() -> Scores:
    """400 classes of two videos: all are right but the second ones of every tenth class, each taken for class 7."""
    labels = [video // 2 for video in range(800)]
    predicted = [7 if video % 20 == 1 else label for video, label in enumerate(labels)]
    probs = np.full((800, 2, 400), 0.5 / 399)
    for video, place in enumerate(predicted):
        probs[video, :, place] = 0.5
    probs[:3, 0, 9] = 0.9  # of the first clip only
    names = [f"class {number:03}" for number in range(400)]
    return made_scores(probs.tolist(), labels, names=names)
