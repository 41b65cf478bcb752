"""A test's scores come out the same to the last bit, whatever came first, and however its views were spread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import NUM_EXAMPLES, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import ABOUT

from a2video.gathering import gather_rows
from a2video.results import summarize, write_results
from a2video.score_files import read_rows, write_rows, write_scores
from a2video.scores import COLUMNS, VIDEO, VIEW, About, Rows, Scores, join

CPU = torch.device("cpu")


@st.composite
def scored(draw: Callable[[st.SearchStrategy], Any]) -> tuple[Rows, list[int], bool]:
    """Views of up to six videos of up to four views each, their labels, and whether the last is the extra one."""
    num_classes, has_extra = draw(st.integers(1, 4)), draw(st.booleans())
    num_views = draw(st.lists(st.integers(1 + has_extra, 4), min_size=1, max_size=6))
    labels = [draw(st.integers(0, num_classes - 1)) for _ in num_views]
    views = [
        (video, label, view, count, -1 if has_extra and view == count - 1 else view, 0, view, view + 3)
        for video, (label, count) in enumerate(zip(labels, num_views, strict=True))
        for view in range(count)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(0, draw(st.sampled_from([0.1, 1, 30])), (len(views), num_classes))
    return Rows(np.array(views, np.int32), logits.astype(np.float32)), labels, has_extra


def scores_of(rows: Rows, labels: list[int], has_extra: bool, average: str = "probs") -> Scores:
    about = About(**{**ABOUT.to_dict(), "center_view": -1 if has_extra else None, "average": average})
    names = "abcd"[: rows.logits.shape[1]]
    return Scores.of(about, names, [f"{video}.mp4" for video in range(len(labels))], labels, rows, {})


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(examples, max_examples=NUM_EXAMPLES or 20)  # each writes and syncs many files
@given(scored(), st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from(["probs", "logits"]))
def test_any_order_and_any_split_into_parts_give_the_same_bytes(
    folder: Path, test: tuple[Rows, list[int], bool], random: Any, num_parts: int, average: str
) -> None:
    """Parts may share views, as ranks and the parts of interrupted tests do, and go through files."""
    rows, labels, has_extra = test
    order = [*range(len(rows)), *random.choices(range(len(rows)), k=random.randrange(4))]
    random.shuffle(order)
    places = [random.randrange(num_parts) for _ in order]
    parts = [
        rows[[row for row, place in zip(order, places, strict=True) if place == part]] for part in range(num_parts)
    ]
    read = [read_rows(write_rows(folder / f"{n}.parquet", part, {}))[0] for n, part in enumerate(parts)]
    found = []
    for name, given_rows in (("straight", rows), ("gathered", gather_rows(parts, CPU)), ("files", join(read))):
        scores = scores_of(given_rows, labels, has_extra, average)
        (folder / name).mkdir(exist_ok=True)
        files = [*write_results(scores, folder / name), write_scores(scores, folder / name / "scores.parquet")]
        found.append([file.read_bytes() for file in files])
    assert found[0] == found[1] == found[2]


@examples
@given(scored(), st.data())
def test_videos_that_lack_a_view_are_not_scored(test: tuple[Rows, list[int], bool], data: st.DataObject) -> None:
    rows, labels, has_extra = test
    lost = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=4)))
    kept = np.delete(np.arange(len(rows)), lost)
    scores = scores_of(rows[kept], labels, has_extra)
    damaged = sorted({int(rows.views[row, VIDEO]) for row in lost})
    assert sorted(scores.unscored) == damaged
    assert scores.scored.tolist() == [video for video in range(len(labels)) if video not in damaged]
    whole = rows[~np.isin(rows.views[:, VIDEO], damaged)]
    assert np.array_equal(scores.rows.views, whole.views)
    assert np.array_equal(scores.rows.logits, whole.logits)
    for video, why in scores.unscored.items():
        count = int((rows.views[kept][:, VIDEO] == video).sum())
        wanted = f"has {count} of its {(rows.views[:, VIDEO] == video).sum()} views" if count else "was not tested"
        assert why == f"{video}.mp4: {wanted}"


@examples
@given(scored())
def test_numbers_fit_each_other(test: tuple[Rows, list[int], bool]) -> None:
    rows, labels, has_extra = test
    found = summarize(scores_of(rows, labels, has_extra))
    assert found["coverage"] == 1
    for level in ("clip", "video"):
        assert 0 <= found[f"{level}_top1"] <= found[f"{level}_top5"] == 1  # of at most four classes
        assert found[f"{level}_top1_all"] == found[f"{level}_top1"]
    assert (found["center_top1"] is None) == (not has_extra)
    assert 0 <= found["mean_class_accuracy"] <= 1
    assert 0 <= found["calibration"]["ece"] <= 1
    assert sum(part["videos"] for part in found["calibration"]["bins"]) == len(labels)


@examples
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_once_is_sorted_and_has_each_view_once(pairs: list[tuple[int, int]]) -> None:
    views = np.zeros((len(pairs), len(COLUMNS)), np.int32)
    views[:, [VIDEO, VIEW]] = np.array(pairs, np.int32).reshape(-1, 2)
    once = Rows(views, np.zeros((len(pairs), 1), np.float32)).once()
    assert [tuple(row) for row in once.views[:, [VIDEO, VIEW]].tolist()] == sorted(set(pairs))
