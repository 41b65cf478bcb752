"""Numbers worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from made_scores import made_scores

from a2video.results import calibration, label_ranks, summarize, video_probs, worst_mistakes, write_results
from a2video.scores import Scores

VIEWS = [  # two clips, then the one centre view
    [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]],  # mean 0.40 0.50 0.10: b
    [[0.1, 0.5, 0.4], [0.5, 0.1, 0.4], [0.6, 0.2, 0.2]],  # mean 0.30 0.30 0.40: c
    [[0.9, 0.05, 0.05], [0.7, 0.2, 0.1], [0.8, 0.1, 0.1]],  # mean 0.80 0.125 0.075: a
    [],
]


def scores() -> Scores:
    return made_scores(VIEWS, [0, 1, 0, 1], extra_center=True, failed={3: "v3.mp4: it is empty"})


def test_three_levels_and_unscored_videos() -> None:
    found = summarize(scores())
    assert (found["num_videos"], found["num_scored"], found["coverage"]) == (4, 3, 0.75)
    assert found["center_top1"] == pytest.approx(1 / 3, abs=1e-6)  # b, a, a of a, b, a
    assert found["clip_top1"] == pytest.approx(4 / 6, abs=1e-6)  # a b, b a, a a of a, b, a
    assert found["video_top1"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["center_top1_all"] == pytest.approx(1 / 4)
    assert found["clip_top1_all"] == pytest.approx(4 / 8)
    assert found["video_top1_all"] == pytest.approx(1 / 4)
    assert found["video_top5"] == 1
    assert found["video_top5_all"] == 0.75
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["majority_baseline"] == 0.5
    assert found["mean_class_accuracy"] == pytest.approx((1 / 2 + 0) / 2)  # no video of c
    pairs = [{"true": "a", "predicted": "b", "count": 1}, {"true": "b", "predicted": "c", "count": 1}]
    assert found["most_confused"] == pairs
    assert found["failed"] == [{"path": "v3.mp4", "error": "v3.mp4: it is empty"}]
    # predicted with 0.5 (wrong), 0.4 (wrong), 0.8 (right): each alone in its bin
    assert found["calibration"]["ece"] == pytest.approx((0.5 + 0.4 + 0.2) / 3, abs=1e-4)
    ends = [(found["from"], found["to"], found["accuracy"]) for found in found["calibration"]["bins"]]
    assert ends == [(0.3333, 0.4, 0), (0.4667, 0.5333, 0), (0.7333, 0.8, 1)]


def test_mean_of_logits_instead() -> None:
    views = [[[0.98, 0.01, 0.01], [0.3, 0.4, 0.3], [0.3, 0.4, 0.3]]]
    for average, wanted in (("probs", [1.58 / 3, 0.81 / 3, 0.61 / 3]), ("logits", None)):
        if wanted is None:
            means = np.cbrt([0.98 * 0.09, 0.01 * 0.16, 0.01 * 0.09])
            wanted = (means / means.sum()).tolist()
        found = made_scores(views, [0], average=average)
        assert video_probs(found.rows, found.about.average)[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_incomplete_videos_are_not_scored() -> None:
    whole = scores()
    rows = whole.rows[[0, 1, 2, 3, 5, 6, 7, 8]]  # without a view of v1
    again = Scores.of(whole.about, whole.class_names, whole.paths, whole.labels, rows, {3: "v3.mp4: it is empty"})
    assert again.scored.tolist() == [0, 2]
    assert again.unscored == {1: "v1.mp4: has 2 of its 3 views", 3: "v3.mp4: it is empty"}
    assert summarize(again)["coverage"] == 0.5
    none = Scores.of(whole.about, whole.class_names, whole.paths, whole.labels, rows[[]], {})
    found = summarize(none)
    assert (found["video_top1"], found["clip_top1_all"], found["calibration"]) == (None, None, None)
    assert found["failed"][0]["error"] == "v0.mp4: was not tested"


def test_of_equal_classes_the_first_comes_first() -> None:
    tied = np.array([[1, 2, 2, 0]] * 4, np.float32)
    assert label_ranks(tied, np.arange(4)).tolist() == [2, 0, 1, 3]


def test_calibration_of_certain_predictions() -> None:
    found = calibration(np.array([[1, 0], [1, 0]], np.float32), np.array([0, 1]))
    bins = [{"from": 0.9333, "to": 1.0, "videos": 2, "confidence": 1.0, "accuracy": 0.5}]
    assert found == {"ece": 0.5, "bins": bins}


def test_worst_mistakes() -> None:
    first, second = worst_mistakes(scores(), 5)
    assert (first.path, first.label, first.ranked[0][0]) == ("v0.mp4", "a", "b")
    assert first.ranked[0][1] == pytest.approx(0.5)
    assert (second.video, second.label, [name for name, _ in second.ranked]) == (1, "b", ["c", "a", "b"])
    assert len(worst_mistakes(scores(), 1)) == 1


def test_files(tmp_path: Path) -> None:
    results, per_class = write_results(scores(), tmp_path)
    assert json.loads(results.read_text()) == summarize(scores())
    rows = list(csv.reader(per_class.read_text().splitlines()))
    assert rows == [
        ["class", "videos", "scored", "clip_top1", "video_top1", "most_confused_with"],
        ["a", "2", "2", "0.75", "0.5", "b"],
        ["b", "2", "1", "0.5", "0.0", "c"],
        ["c", "0", "0", "", "", ""],
    ]
