"""report.html without a browser: well formed, nothing from outside, the same numbers as results.json."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_scores import made_scores
from pages import HOSTILE, SCORED_AT, Page, assert_policy_names_its_own, large_page, small_page
from PIL import Image
from test_cli import fails

from a2video import html_gallery
from a2video.cli import main
from a2video.data.transforms import Preprocessing
from a2video.data.views import load_test_views
from a2video.html_charts import curve_chart, grid_lines, reliability_chart
from a2video.html_report import html_report, write_html_report
from a2video.rescore import fuse
from a2video.results import summarize
from a2video.score_files import write_scores
from a2video.scores import Scores

LEVEL_NAMES = [f"{level}_top1{suffix}" for level in ("video", "clip", "center") for suffix in ("", "_all")]


def page_of(scores: Scores) -> Page:
    return Page(html_report(scores, SCORED_AT))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return small_page(tmp_path_factory.mktemp("videos"))


def assert_numbers(page: Page, results: dict[str, object]) -> None:
    for name in [*LEVEL_NAMES, "coverage", "num_scored", "num_videos", "mean_class_accuracy"]:
        assert page.numbers.get(name) == results[name], name


def test_numbers_are_those_of_the_results(small: Scores) -> None:
    page, results = page_of(small), summarize(small)
    assert_numbers(page, results)
    assert results["video_top1"] == 0.4
    assert results["video_top1_all"] == pytest.approx(1 / 3, abs=1e-6)
    assert page.numbers["ece"] == results["calibration"]["ece"]
    assert (
        "Video level 40.0% top-1 Over all 6: 33.3% top-1 All views of a video together: 2 clips x 1 crop" in page.text
    )
    assert "Clip level 40.0% top-1 Over all 6: 33.3% top-1 Each view by itself: 2 clips x 1 crop" in page.text
    assert "One centre clip – top-1" in page.text
    assert "Coverage 83.3% : 5 of 6 listed videos were scored." in page.text
    assert "2026-01-02 03:04 UTC" in page.text
    for value in (small.about.list, small.about.checkpoint, f"sha256 {small.about.checkpoint_sha256}"):
        assert value in page.text


def test_nothing_comes_from_outside_and_names_are_text(small: Scores) -> None:
    html = html_report(small, SCORED_AT)
    page = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert not {"h4", "i", "b", "iframe", "object", "form"} & page.tags
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", tag
        if name in ("src", "srcset", "href"):
            assert value.startswith(("data:", "#unscored")), (tag, value)
    for name in HOSTILE[:2]:
        assert page.texts.count(name) >= 3
    assert HOSTILE[2].replace("\x00", "\ufffd") in page.texts
    assert "<b onclick=alert(3)>no frame</b>" in page.text
    assert small.paths[4] in page.texts


def test_the_policy_names_exactly_the_page_s_own_script_and_style(small: Scores) -> None:
    assert_policy_names_its_own(page_of(small))


def test_worst_mistakes_move(small: Scores) -> None:
    page = page_of(small)
    assert len(page.images) == 2  # of three mistakes; one video has gone
    one_view = Preprocessing.from_dict(small.about.preprocessing).one_view
    for source, video in zip(page.images, (4, 1), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))
        assert (picture.size, picture.n_frames) == ((24, 24), 4)
        seen = load_test_views(small.paths[video], one_view)[0].permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        for number in range(4):
            picture.seek(number)
            shown = np.asarray(picture.convert("RGB"), int)
            differences = [np.abs(shown - frame).mean() for frame in seen.astype(int)]
            assert int(np.argmin(differences)) == number
            assert differences[number] < 20  # of 255: lossy, of noise
    assert "does not exist" in page.text


def test_pictures_have_a_limit(small: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_gallery, "MAX_PICTURE_BYTES", 2000)
    page = page_of(small)
    assert len(page.images) < 2
    assert "left out: pictures may have" in page.text


def test_400_classes_stay_light() -> None:
    scores = large_page()
    html = html_report(scores, SCORED_AT)
    page = Page(html)
    assert_numbers(page, summarize(scores))
    assert page.numbers["video_top5"] == summarize(scores)["video_top5"]
    assert len(html) < 500_000
    picture = Image.open(io.BytesIO(base64.b64decode(page.images[0].removeprefix("data:image/png;base64,"))))
    pixels = np.asarray(picture)
    assert pixels.shape == (400, 400, 4)
    assert np.argwhere(pixels[:, 7, 3]).ravel().tolist() == [0, 7, *range(10, 400, 10)]
    assert (pixels[..., 3] > 0).sum() == 440
    assert page.text.count("does not exist") == 12


def test_other_shapes_of_scores() -> None:
    one = page_of(made_scores([[[1.0]]] * 2, [0, 0]))
    assert one.numbers["video_top1"] == 1
    assert "No prediction is wrong." in one.text
    assert "one clip of each video was scored" in one.text
    whole = made_scores([[[0.5, 0.5]] * 2, [[0.5, 0.5]] * 3], [0, 1])
    assert "different numbers of clips" in page_of(whole).text
    none = page_of(Scores.of(whole.about, "ab", whole.paths, [0, 1], whole.rows[[]], {}))
    assert "No video was scored" in none.text
    assert none.numbers["coverage"] == 0
    assert "video_top1" not in none.numbers
    assert "v0.mp4: was not tested" not in none.text  # the path is beside it
    assert "was not tested" in none.text
    fused = fuse([made_scores([[[0.9, 0.1]] * 2], [1])] * 2)
    assert page_of(fused).numbers["video_top1"] == 0
    assert "these are fused scores" in page_of(fused).text


def test_many_unscored_videos() -> None:
    scores = made_scores([[[0.5, 0.5]]], [0])
    paths = [f"v{number}.mp4" for number in range(600)]
    failed = {number: f"v{number}.mp4: {'x' * 2000}" for number in range(1, 600)}
    page = page_of(Scores.of(scores.about, "ab", paths, [0] * 600, scores.rows, failed))
    assert "And 99 more: results.json has all of them." in page.text
    assert page.texts.count("x" * 600 + "…") == 500


def test_grid_lines() -> None:
    assert grid_lines(0.685, 0.761) == [0.68, 0.7, 0.72, 0.74, 0.76, 0.78]
    assert grid_lines(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert grid_lines(1, 1) == [0.99, 1]
    assert grid_lines(0, 0) == [0, 0.01]
    assert grid_lines(0.5, 0.5) == [0.5, 0.51]


def test_charts_put_points_where_they_belong() -> None:
    chart = curve_chart([(1, 0.5), (2, 0.52), (3, 0.54)], 3)
    assert chart["points"][0][:2] == (60, 204)  # the lowest line is 50%, the highest 54%
    assert chart["points"][2] == (332, 24, "3 clips: 54.0%")
    assert chart["crops"] == "3 crops of each"
    found = {"from": 0.8, "to": 0.9, "videos": 3, "confidence": 0.85, "accuracy": 0.5}
    chart = reliability_chart({"ece": 0.35, "bins": [found]})
    assert chart["bars"][0][:4] == (287, 114, 28, 90)
    assert chart["points"][0][:2] == (301, 114)


def test_command_line(small: Scores, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_scores(small, tmp_path / "scores.parquet")
    os.utime(file, (SCORED_AT.timestamp(),) * 2)
    for options, out in (([], "report.html"), (["--out", str(tmp_path / "new/other.html")], "new/other.html")):
        with pytest.raises(SystemExit) as exit_info:
            main(["report", str(tmp_path), *options])
        assert exit_info.value.code == 0
        assert capsys.readouterr().out == f"Wrote {tmp_path / out}\n"
        assert (tmp_path / out).read_text(encoding="utf-8") == html_report(small, SCORED_AT)
    assert "ends in .html" in fails(capsys, "report", tmp_path, "--out", tmp_path / "results.json")
    assert "scores.parquet does not exist" in fails(capsys, "report", tmp_path / "new")


def test_the_test_command_writes_it(
    trained: Path, write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    main(["test", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt")])
    path = tmp_path / "out/report.html"
    assert capsys.readouterr().out.splitlines()[-1].endswith(f", {path}")
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    page = Page(path.read_text(encoding="utf-8"))
    assert_numbers(page, results)
    assert results["protocol"] in page.text
    num_wrong = 5 - round(5 * results["video_top1"])
    assert len(page.images) == num_wrong
    scores = (tmp_path / "out/scores.parquet").rename(tmp_path / "scores.parquet")
    with pytest.raises(SystemExit):
        main(["rescore", str(scores), "--protocol", "center", "--out", str(tmp_path / "out"), "--overwrite"])
    assert not path.exists()  # it was of other numbers


def test_names_that_are_no_text(small: Scores, tmp_path: Path) -> None:
    strange = replace(small, paths=("a\udcff.mp4", *small.paths[1:]))
    written = write_html_report(strange, tmp_path / "report.html", SCORED_AT)
    assert_numbers(Page(written.read_text(encoding="utf-8")), summarize(small))
