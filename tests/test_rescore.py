"""Sub-protocols, other averages, fewer classes and fusion, by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG
from made_scores import made_scores
from test_cli import fails

from a2video import splits
from a2video.cli import main
from a2video.errors import InputError
from a2video.rescore import (
    accuracy_by_num_clips,
    choose_views,
    even_choice,
    fuse,
    with_average,
    with_classes,
)
from a2video.results import summarize, video_probs
from a2video.score_files import read_scores, write_scores
from a2video.scores import CLIP, CROP, NUM_VIEWS, VIEW, Scores


def numbered(num_clips: int, num_crops: int, extra_center: bool = True) -> Scores:
    """Two videos; view v of them has the probability (v + 1) / 100 of class a."""
    count = num_clips * num_crops + extra_center
    views = [[[(view + 1) / 100, 1 - (view + 1) / 100] for view in range(count)]] * 2
    return made_scores(views, [0, 1], num_crops, extra_center)


def numbers(scores: Scores) -> list[int]:
    """Of the first video's views, as made by `numbered`."""
    first = scores.rows.views[:, 0] == 0
    return (np.exp(scores.rows.logits[first, 0]) * 100 - 1).round().astype(int).tolist()


def test_even_choice() -> None:
    assert even_choice(10, 10) == list(range(10))
    assert even_choice(4, 10) == [0, 3, 6, 9]
    assert even_choice(3, 10) == [0, 4, 9]
    assert even_choice(2, 10) == [0, 9]
    assert even_choice(1, 10) == [4]
    assert even_choice(1, 5) == [2]
    assert even_choice(3, 5) == [0, 2, 4]


def test_fewer_clips_and_crops() -> None:
    whole = numbered(4, 3)
    fewer = choose_views(whole, "2x3")
    assert numbers(fewer) == [0, 1, 2, 9, 10, 11, 12]  # the extra centre view stays
    assert fewer.rows.views[:7, VIEW].tolist() == list(range(7))
    assert fewer.rows.views[:7, NUM_VIEWS].tolist() == [7] * 7
    assert fewer.rows.views[:7, CLIP].tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert numbers(choose_views(whole, "4x1")) == [1, 4, 7, 10, 12]
    assert numbers(choose_views(choose_views(whole, "2x3"), "2x1")) == [1, 10, 12]
    middle = choose_views(fewer, "1x1")
    assert middle.rows.views[:2, CROP].tolist() == [0, 0]
    assert middle.about.protocol.startswith(
        "1 x 1 (clips 0; crops 1) of the views of: 2 x 3 (clips 0, 3; crops 0, 1, 2)"
    )
    center = choose_views(fewer, "center")
    assert numbers(center) == [12]
    found = summarize(center)
    assert found["center_top1"] == found["clip_top1"] == found["video_top1"] == 0.5


def test_a_centre_view_among_the_others_is_followed() -> None:
    views = [[[(view + 1) / 100, 1 - (view + 1) / 100] for view in range(15)]]
    whole = made_scores(views, [0], 3, center_view=7)
    assert numbers(choose_views(whole, "center")) == [7]
    assert numbers(choose_views(choose_views(whole, "3x1"), "center")) == [7]
    assert choose_views(whole, "2x3").about.center_view is None  # clips 0 and 4


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("5x3", "take at most 4 clips, and 3 crops or 1"),
        ("4x2", "is not to be had from 4 clips x 3 crops"),
        ("0x1", "neither `center` nor N x M"),
        ("centre", "neither `center` nor N x M"),
    ],
)
def test_views_that_are_not_there(protocol: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_views(numbered(4, 3), protocol)


def test_other_views_that_are_not_there() -> None:
    with pytest.raises(InputError, match="the one centre view was not scored"):
        choose_views(numbered(4, 3, extra_center=False), "center")
    dense = made_scores([[[0.5, 0.5]] * 3, [[0.5, 0.5]] * 2], [0, 1])
    with pytest.raises(InputError, match="different numbers of clips"):
        choose_views(dense, "2x1")
    fused = fuse([numbered(2, 1), numbered(2, 1)])
    with pytest.raises(InputError, match="these are fused scores"):
        choose_views(fused, "1x1")


def test_mean_of_logits() -> None:
    views = [[[0.98, 0.01, 0.01], [0.3, 0.4, 0.3], [0.3, 0.4, 0.3]], [[0.2, 0.5, 0.3]] * 3]
    found = with_average(made_scores(views, [0, 1]), "logits")
    means = np.cbrt([0.98 * 0.09, 0.01 * 0.16, 0.01 * 0.09])
    assert video_probs(found.rows, found.about.average)[0].tolist() == pytest.approx((means / means.sum()).tolist())
    assert found.about.protocol == "mean of logits instead of: 2 clips x 1 crop"
    assert with_average(found, "logits") is found


def test_some_classes() -> None:
    views = [[[0.5, 0.2, 0.3]], [[0.1, 0.3, 0.6]], [[0.2, 0.6, 0.2]], []]
    whole = made_scores(views, [0, 1, 2, 2], failed={3: "v3.mp4: is empty"})
    some = with_classes(whole, ["c", "a"])
    assert (some.paths, some.labels, some.unscored) == (
        ("v0.mp4", "v2.mp4", "v3.mp4"),
        (1, 0, 0),
        {2: "v3.mp4: is empty"},
    )
    assert video_probs(some.rows, "probs").tolist() == [pytest.approx([3 / 8, 5 / 8]), pytest.approx([0.5, 0.5])]
    found = summarize(some)
    assert (found["video_top1"], found["video_top1_all"]) == (1, pytest.approx(2 / 3, abs=1e-6))
    assert found["protocol"] == "2 of 3 classes, 2 clips x 1 crop"
    for names, message in (
        (["a", "x"], "'x' is none of the 3 classes"),
        ([], "expected different"),
        (["a", "a"], "expec"),
    ):
        with pytest.raises(InputError, match=message):
            with_classes(whole, names)


def test_late_fusion() -> None:
    first = made_scores([[[0.9, 0.1], [0.5, 0.5]], [[0.4, 0.6]] * 2, [[0.5, 0.5]] * 2], [0, 1, 0])
    other = made_scores(
        [[[0.2, 0.8]], [[0.1, 0.9]], []], [0, 1, 0], failed={2: "v2.mp4: is empty"}, checkpoint="b.ckpt"
    )
    for weights, wanted in ((None, [0.45, 0.25]), ([3, 1], [0.575, 0.325])):
        fused = fuse([first, other], weights)
        assert video_probs(fused.rows, "probs")[:, 0].tolist() == pytest.approx(wanted)
    assert fused.unscored == {2: "v2.mp4: is empty"}
    assert fused.about.checkpoint == "best.ckpt + b.ckpt"
    found = summarize(fused)
    assert (found["center_top1"], found["clip_top1"], found["video_top1"]) == (None, None, 1)
    assert found["protocol"] == "late fusion of 0.75 x [2 clips x 1 crop]; 0.25 x [2 clips x 1 crop]"
    certain = made_scores([[[1.0, 1e-45]], [[1.0, 1e-45]]], [0, 1])
    assert np.isfinite(fuse([certain]).rows.logits).all()
    moved = replace(other, paths=tuple(f"/elsewhere/{path}" for path in other.paths))
    assert np.array_equal(fuse([first, moved]).rows.logits, fuse([first, other]).rows.logits)
    for several, weights, message in (
        ([first, made_scores([[[0.5, 0.5]]], [0])], None, "only scores of the same videos can be fused"),
        ([first, made_scores([[[0.5, 0.4, 0.1]]] * 3, [0, 1, 0])], None, "different classes"),
        ([first, other], [1], "expected 2 numbers"),
        ([first, other], [0, 0], "not all 0"),
        ([first, other], [1, -1], "from 0 up"),
    ):
        with pytest.raises(InputError, match=message):
            fuse(several, weights)


def test_accuracy_by_number_of_clips() -> None:
    right, wrong = [0.9, 0.1], [0.3, 0.7]
    views = [[wrong, right, wrong, right], [right, right, wrong, wrong]]
    curve = accuracy_by_num_clips(made_scores(views, [0, 0]))
    # 1: clip 1; 2: clips 0, 3; 3: clips 0, 1, 3; 4: all
    assert curve == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)]
    weak = [[[0.6, 0.4], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]], [[0.6, 0.4]] * 4]
    assert accuracy_by_num_clips(made_scores(weak, [0, 0])) == [(1, 0.5), (2, 1.0), (3, 0.5), (4, 0.5)]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, label in ((1, 0), (2, 1)):
        write_scores(
            made_scores([[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8]] * 2], [label, 1]), tmp_path / f"{split}/scores.parquet"
        )
        out = tmp_path / f"out{split}"
        with pytest.raises(SystemExit) as exit_info:
            main(["rescore", str(tmp_path / str(split)), "--protocol", "1x1", "--average", "logits", "--out", str(out)])
        assert exit_info.value.code == 0
        written = {path.name for path in out.iterdir()}
        assert written == {
            "results.json", "per_class.csv", "test_predictions.csv", "confusion_matrix.png", "scores.parquet"
        }  # fmt: skip
        assert json.loads((out / "results.json").read_text()) == summarize(read_scores(out))
    assert "1 x 1 (clips 0; crops 0) of the views of: 2 clips x 1 crop" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", "--mean", str(tmp_path / "out1"), str(tmp_path / "out2")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-6:] for line in lines[1:4]] == [
        ["100.0%", "-", "100.0%", "2/2", "50.0%", "50.0%"],
        ["50.0%", "-", "50.0%", "2/2", "50.0%", "100.0%"],
        ["75.0%", "-", "75.0%", "4/4", "50.0%", "75.0%"],
    ]
    assert lines[3].startswith("mean of 2 ")
    own = ("rescore", tmp_path / "1", "--out", tmp_path / "1", "--overwrite", "--protocol", "1x1")
    assert "is one of the scores to be read" in fails(capsys, *own)
    assert len(read_scores(tmp_path / "1").rows) == 4
    (tmp_path / "out2/results.json").rename(tmp_path / "results.json")
    assert "scores.parquet exists: choose another" in fails(
        capsys, "rescore", tmp_path / "1", "--out", tmp_path / "out2"
    )
    (tmp_path / "results.json").rename(tmp_path / "out2/results.json")
    again = ("rescore", tmp_path / "1", "--out", tmp_path / "out1")
    assert "results.json exists: choose another --out" in fails(capsys, *again)
    assert "--protocol '7' is neither" in fails(capsys, *again, "--overwrite", "--protocol", "7")
    with pytest.raises(SystemExit):
        main([str(part) for part in (*again, "--overwrite", "--classes", "b,a")])
    assert json.loads((tmp_path / "out1/results.json").read_text())["class_names"] == ["b", "a"]
    message = fails(capsys, "compare", "--mean", tmp_path / "out1", tmp_path / "out2")
    assert "no mean of tests by different protocols" in message


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The commands that `a2video splits` runs, in this process."""
    commands: list[Sequence[str]] = []
    really_run = subprocess.run

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "a2video" not in command:  # such as git
            return really_run(command, **options)
        commands.append(command[3:])
        status = 0
        try:
            main(command[3:])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(splits.subprocess, "run", run)
    return commands


def test_three_tests_whose_folders_are_in_their_yaml_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ran: list[Sequence[str]], small_data: Path, trained: Path
) -> None:
    head, *videos = (small_data / "test.csv").read_text("utf-8").splitlines()
    for number, chosen in ((1, videos[:2]), (2, videos[:3]), (3, videos[3:])):
        (tmp_path / f"{number}.csv").write_text("\n".join([head, *chosen]), "utf-8")
        config = CONFIG.format(out=tmp_path / f"runs/split{number}", data=small_data)
        config = config.replace(str(small_data / "test.csv"), str(tmp_path / f"{number}.csv"))
        (tmp_path / f"split{number}.yaml").write_text(config, "utf-8")
    command = ["test", f"--config={tmp_path}/split{{split}}.yaml", "--ckpt_path", str(trained / "best.ckpt")]
    with pytest.raises(SystemExit) as exit_info:
        main(["splits", "1", "2", "3", "--", *command, f"--data.root={small_data}"])
    assert exit_info.value.code == 0
    assert len(ran) == 3
    tops = [json.loads((tmp_path / f"runs/split{n}/results.json").read_text())["video_top1"] for n in (1, 2, 3)]
    (mean,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("mean of 3"))
    assert mean.split()[-6:-2] == [f"{sum(tops) / 3:.1%}", "-", f"{sum(tops) / 3:.1%}", "7/7"]
    one_folder = ["--trainer.default_root_dir", str(tmp_path / "x")]
    message = fails(capsys, "splits", "1", "2", "--", *command, *one_folder)
    assert f"all splits would be written to one folder, {tmp_path / 'x'}" in message
    assert "all splits would be written to one folder" in fails(capsys, "splits", "1", "1", "--", *command)
    assert "split4.yaml cannot be read: [Errno 2]" in fails(capsys, "splits", "1", "4", "--", *command)
    assert len(ran) == 3


def test_one_command_for_all_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ran: list[Sequence[str]]
) -> None:
    for split, label in ((1, 0), (2, 1)):
        write_scores(made_scores([[[0.9, 0.1]], [[0.2, 0.8]]], [label, 1]), tmp_path / f"{split}/scores.parquet")
    command = ["rescore", f"{tmp_path}/{{split}}", f"--out={tmp_path}/out{{split}}"]
    with pytest.raises(SystemExit) as exit_info:
        main(["splits", "1", "2", "--", *command])
    assert exit_info.value.code == 0
    assert ran == [["rescore", f"{tmp_path}/{n}", f"--out={tmp_path}/out{n}"] for n in (1, 2)]
    assert capsys.readouterr().out.splitlines()[-3].split()[-6] == "75.0%"  # mean; then two protocols
    with pytest.raises(SystemExit) as exit_info:
        main(["splits", "2", "1", "--", *command])  # results are there already
    assert exit_info.value.code == 2
    assert len(ran) == 3
    assert "no command to run" in fails(capsys, "splits", "1", "2")
    message = fails(capsys, "splits", "1", "2", "--", "test", "--trainer.default_root_dir", "runs/x")
    assert "all splits would be written to one folder" in message
