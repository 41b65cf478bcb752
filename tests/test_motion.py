"""The motion data set: right files, reproducible bytes, and classes that no single frame can tell apart."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

DATA_PREP = Path(__file__).resolve().parents[1] / "data_prep"
sys.path.insert(0, str(DATA_PREP))
import motion  # noqa: E402

NUM_CLASSES = len(motion.CLASSES)
SMALL = ["--num-train", "9", "--num-val", "1", "--num-test", "2", "--difficulty", "hard"]


def make(out: Path, *more: str) -> None:
    motion.main(["--out", str(out), *SMALL, *more])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion") / "data"
    make(folder)
    return folder


@pytest.fixture
def course() -> motion.Course:
    return motion.Course(speed=1.0, direction=90.0, deviation=0.0, radius=10.0, phase=0.0)


def test_files(data: Path) -> None:
    assert sorted(p.name for p in data.iterdir()) == ["motion.json", "test.csv", "train.csv", "val.csv", "videos"]
    rows = list(csv.DictReader((data / "train.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [f"videos/train/{i:05d}.mp4" for i in range(9)]
    assert (data / "val.csv").read_text() == f"path,label\nvideos/val/00000.mp4,{motion.label_of(0, 'val', 0)}\n"
    assert len(list((data / "videos").rglob("*.mp4"))) == 12
    settings = json.loads((data / "motion.json").read_text())
    assert settings["difficulty"] == "hard"
    assert settings["num_videos"] == {"train": 9, "val": 1, "test": 2}
    assert settings["target_radius"] == [5, 8]


def test_videos_decode(data: Path) -> None:
    for path in sorted((data / "videos").rglob("*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert (stream.codec_context.name, stream.average_rate) == ("h264", 30)
        assert np.shape(frames) == (60, 128, 128, 3)


def test_decoded_frames_are_the_drawn_ones(data: Path) -> None:
    label, rng = motion.label_of(0, "test", 1), np.random.default_rng([0, 2, 1])
    drawn = motion.render(label, rng, motion.DIFFICULTIES["hard"])
    with av.open(str(data / "videos/test/00001.mp4")) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(decoded.astype(float) - drawn).mean() < 12


def test_bytes_do_not_depend_on_workers_or_counts(data: Path, tmp_path: Path) -> None:
    make(tmp_path / "one", "--num-workers", "1", "--num-train", "3")
    first, again = files(data / "videos"), files(tmp_path / "one/videos")
    assert again == {name: first[name] for name in again}
    assert len(again) == 6
    assert len(set(first.values())) == 12  # and no two videos are the same


def test_finished_data_is_kept(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    make(data)
    assert "Kept the finished 12 videos" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize("other", [["--seed", "1"], ["--difficulty", "easy"], ["--num-val", "2"]])
def test_other_settings_are_refused(data: Path, other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = files(data)
    with pytest.raises(SystemExit) as caught:
        make(data, *other)
    assert caught.value.code == 2
    assert "holds a motion data set with other settings" in capsys.readouterr().err
    assert files(data) == before


def test_runs_as_a_script(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["motion.py", "--out", str(data), *SMALL])
    runpy.run_path(str(DATA_PREP / "motion.py"), run_name="__main__")


def test_labels_are_balanced_and_in_no_fixed_order() -> None:
    labels = [motion.label_of(0, "train", index) for index in range(25 * NUM_CLASSES)]
    assert Counter(labels) == dict.fromkeys(motion.CLASSES, 25)
    by_place = [Counter(labels[place::NUM_CLASSES]) for place in range(NUM_CLASSES)]
    assert max(max(counter.values()) for counter in by_place) < 12
    assert labels[:50] != [motion.label_of(1, "train", index) for index in range(50)]
    assert labels[:50] != [motion.label_of(0, "val", index) for index in range(50)]


@pytest.mark.parametrize(
    ("label", "a_moves", "b_moves"),
    [
        ("right", (30, 0), (0, 0)),
        ("left", (-30, 0), (0, 0)),
        ("up", (0, -30), (0, 0)),
        ("down", (0, 30), (0, 0)),
        ("same_way", (0, 30), (0, 30)),
        ("opposite_ways", (0, 30), (0, -30)),
        ("follow", (0, 30), (0, 30)),
        # From the lowest point of a circle of radius 10, by 3 radians: clockwise is first to the left.
        ("clockwise", (-1.4112, -19.8999), (0, 0)),
        ("counterclockwise", (1.4112, -19.8999), (0, 0)),
    ],
)
def test_displacement_in_30_frames(
    label: str, a_moves: tuple[float, float], b_moves: tuple[float, float], course: motion.Course
) -> None:
    start = np.array([[50.0, 20.0], [100.0, 70.0]])
    positions = motion.target_positions(label, start, course, np.array([0.0, 30.0]))
    np.testing.assert_allclose(positions[:, 0], start, atol=1e-12)
    np.testing.assert_allclose(positions[:, 1] - start, [a_moves, b_moves], atol=1e-4)


@pytest.mark.parametrize(
    ("label", "in_beats", "a_at", "b_at"),
    [
        ("same_way", True, [10, 30, 30, 30], [10, 30, 30, 30]),
        ("opposite_ways", True, [10, 30, 30, 30], [-10, -30, -30, -30]),
        ("follow", True, [10, 30, 30, 30], [0, 0, 10, 30]),
        ("same_way", False, [5, 15, 20, 30], [5, 15, 20, 30]),
        ("follow", False, [10, 30, 30, 30], [0, 0, 10, 30]),
    ],
)
def test_beats(label: str, in_beats: bool, a_at: list[int], b_at: list[int], course: motion.Course) -> None:
    """A moves for 15 frames and rests for 15; B does so with it, or a beat later; or both move steadily."""
    times = np.array([5.0, 15.0, 20.0, 30.0])
    a, b = motion.target_positions(label, np.zeros((2, 2)), course, times, in_beats)
    np.testing.assert_allclose(a[:, 1], a_at, atol=1e-9)
    np.testing.assert_allclose(b[:, 1], b_at, atol=1e-9)


def test_unknown_label(course: motion.Course) -> None:
    with pytest.raises(ValueError, match="'sideways'"):
        motion.target_positions("sideways", np.zeros((2, 2)), course, np.zeros(1))


def excess(positions: np.ndarray) -> float:
    """How many deviations the chi-square statistic of positions (N, 4), binned 3**4-fold, lies above uniform's mean."""
    bins = (positions % motion.SIZE * 3 / motion.SIZE).astype(int) @ [27, 9, 3, 1]
    counts, expected = np.bincount(bins, minlength=81), len(positions) / 81
    return float((((counts - expected) ** 2 / expected).sum() - 80) / np.sqrt(2 * 80))


@pytest.mark.parametrize("label", motion.CLASSES)
@pytest.mark.parametrize("frame", [13, 59])
def test_positions_are_uniform_at_every_time(label: str, frame: int) -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(3000):
        course, start = motion.draw_course(rng, (1.0, 2.0)), rng.uniform(0, motion.SIZE, size=(2, 2))
        found.append(motion.target_positions(label, start, course, np.array([float(frame)]))[:, 0])
    a, b = np.stack(found, axis=1)
    assert excess(np.hstack([a, b])) < 4
    assert excess(np.hstack([a, b - a])) < 4  # where A is, and from there to B


def test_the_uniformity_check_can_fail() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.uniform(0, motion.SIZE, size=(2, 3000, 2))
    assert excess(np.hstack([a, b])) < 4
    assert excess(np.hstack([a, a + 0.8 * (b - a)])) > 4  # targets that have come nearer to each other
    assert excess(np.hstack([a, 0.9 * b])) > 4  # a target that avoids one border


@pytest.mark.parametrize("difficulty", motion.DIFFICULTIES.values(), ids=motion.DIFFICULTIES)
def test_first_frame_is_the_same_in_every_class(difficulty: motion.Difficulty) -> None:
    videos = [motion.render(label, np.random.default_rng(3), difficulty) for label in motion.CLASSES]
    for one, other in pairwise(videos):
        np.testing.assert_array_equal(one[0], other[0])  # nothing but the motion knows the class
        assert (one[30] != other[30]).any()
