"""`a2video classify` on many real videos: what it finds, writes, goes on with and refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video

from a2video import InputError, VideoClassifier, open_video
from a2video.cli import main
from a2video.inference.formats import Json
from a2video.inference.outputs import Results
from a2video.inference.sources import find_videos
from a2video.printable import shown
from a2video.score_files import read_scores
from a2video.scores import VIDEO


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos in two folders, one of them broken, and things that are none."""
    folder = tmp_path_factory.mktemp("my videos")
    for number in range(6):
        place = folder / ("deep/er" if number % 2 else "")
        write_video(place / f"{number} ü.mp4", moving_square(1 if number % 3 else -1, 10 + 8 * number, seed=number))
    (folder / "broken.mp4").write_bytes((folder / "0 ü.mp4").read_bytes()[:700])
    (folder / "notes.txt").write_text("no list")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.mp4").write_bytes(b"")
    return folder


NAMES = ["0 ü.mp4", "2 ü.mp4", "4 ü.mp4", "broken.mp4", "deep/er/1 ü.mp4", "deep/er/3 ü.mp4", "deep/er/5 ü.mp4"]


def classify(checkpoint: Path, *arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["classify", str(checkpoint), *map(str, arguments)])
    return int(exit_info.value.code or 0)


def read_json(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestSources:
    def test_folders_patterns_and_lists(self, folder: Path, tmp_path: Path) -> None:
        expected = [str(folder / name) for name in NAMES]
        assert [source.path for source in find_videos([str(folder)])] == expected
        assert [source.name for source in find_videos([str(folder)])] == NAMES
        assert [source.path for source in find_videos([f"{folder}/**/*.mp4"])] == expected
        assert [source.name for source in find_videos([f"{folder}/deep/*/[13]*"])] == ["er/1 ü.mp4", "er/3 ü.mp4"]
        listed = tmp_path / "list.csv"
        listed.write_text(f"path,label\n{folder}/0 ü.mp4,7\nnot there.mp4,1\n", encoding="utf-8")
        assert [s.path for s in find_videos([str(listed)])] == [
            str(folder / "0 ü.mp4"),
            str(tmp_path / "not there.mp4"),
        ]
        twice = find_videos([str(folder / "2 ü.mp4"), str(folder), str(folder / "gone.mp4")])
        assert [source.path for source in twice] == [expected[1], expected[0], *expected[2:], str(folder / "gone.mp4")]

    def test_shards_share_all_videos_and_stay_when_some_are_added(self, tmp_path: Path) -> None:
        for number in range(40):
            (tmp_path / f"{number}.mp4").touch()
        parts = [[s.name for s in find_videos([str(tmp_path)], (k, 4))] for k in range(1, 5)]
        assert sorted(name for part in parts for name in part) == sorted(f"{number}.mp4" for number in range(40))
        assert min(map(len, parts)) >= 4
        (tmp_path / "another.mp4").touch()
        for k, part in enumerate(parts, 1):
            assert set(part) <= {s.name for s in find_videos([str(tmp_path)], (k, 4))}

    def test_nothing_found(self, tmp_path: Path) -> None:
        for nothing in (tmp_path, tmp_path / "*.mp4"):
            with pytest.raises(InputError, match="no video and no picture found"):
                find_videos([str(nothing)])

    def test_links_that_lead_in_circles(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to(tmp_path)
        write_video(tmp_path / "a.mp4", moving_square(1))
        assert [source.name for source in find_videos([str(tmp_path)])] == ["a.mp4"]


def test_json_goes_on_where_it_was_cut_off(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    assert classify(trained / "best.ckpt", folder, "--out", out) == 1
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last == [f"6 of 7 videos classified; results are in {out}", "1 of 7 videos could not be read"]
    rows = read_json(out)
    assert [row["path"] for row in rows] == [str(folder / name) for name in NAMES]
    assert "broken.mp4" in rows[3]["error"]
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) - 40])  # killed while it wrote
    assert classify(trained / "best.ckpt", folder, "--out", out) == 0
    assert out.read_bytes() == whole
    assert "1 of 1 videos classified, 6 were done before (1 of them not readable" in capsys.readouterr().err
    assert classify(trained / "best.ckpt", folder, "--out", out) == 0
    assert out.read_bytes() == whole


def test_the_clips_have_their_seconds(trained: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    classify(trained / "best.ckpt", folder / "deep/er/5 ü.mp4", "--out", out)
    (row,) = read_json(out)
    prediction = VideoClassifier.load(trained / "best.ckpt")(folder / "deep/er/5 ü.mp4")
    assert [p["label"] for p in row["predictions"]] == [label for label, _ in prediction.ranked]
    starts = [0, 21, 43]  # 50 frames, span 7
    assert [clip["start_seconds"] for clip in row["clips"]] == pytest.approx([s / 30 for s in starts], abs=1e-4)
    assert [clip["end_seconds"] for clip in row["clips"]] == pytest.approx([(s + 7) / 30 for s in starts], abs=1e-4)
    assert [clip["label"] for clip in row["clips"]] == [clip.ranked[0][0] for clip in prediction.clips]


def test_csv_and_shards(trained: Path, folder: Path, tmp_path: Path) -> None:
    seen = []
    for part in ("1/2", "2/2"):
        out = tmp_path / f"{part[0]}.csv"
        classify(trained / "best.ckpt", folder, "--out", out, "--shard", part, "--top", 1)
        with out.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(set(row) == {"path", "label_1", "probability_1", "error", "model"} for row in rows)
        assert all(bool(row["label_1"]) != bool(row["error"]) for row in rows)
        seen += [row["path"] for row in rows]
    assert sorted(seen) == sorted(str(folder / name) for name in NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"path": "a", "predictions": [], "model": "other 123"}\n', "has results of the model other 123"),
        ('{"path": "a", "segments": [], "model": "best.ckpt x"}\n', "expected a JSON object with path, predictions"),
        ("important notes\n", "line 1: expected a JSON object"),
        ("important notes", "which was not written by this command"),
        ("\udcff\n", "line 1|decode|invalid"),
    ],
)
def test_other_files_are_not_appended_to(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text(content, encoding="utf-8", errors="surrogateescape")
    before = out.read_bytes()
    assert classify(trained / "best.ckpt", folder, "--out", out) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert out.read_bytes() == before
    with pytest.raises(InputError, match=message):
        Results(Json(None), out, "best.ckpt x")
    assert classify(trained / "best.ckpt", folder / "0 ü.mp4", "--out", out, "--overwrite") == 0
    assert [row["path"] for row in read_json(out)] == [str(folder / "0 ü.mp4")]


def test_one_process_a_file(trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Results(Json(None), tmp_path / "r.jsonl", "m")
    assert classify(trained / "best.ckpt", folder, "--out", tmp_path / "r.jsonl") == 2
    assert "is being written by another process" in capsys.readouterr().err
    first.close()


def test_a_full_disk(trained: Path, folder: Path, tmp_path: Path) -> None:
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
from a2video.cli import main
main(["classify", {str(trained / "best.ckpt")!r}, {str(folder)!r}, "--out", {str(tmp_path / "r.jsonl")!r}])
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == 2
    assert "r.jsonl cannot be written (File too large): make room" in error
    assert "Traceback" not in error
    classify(trained / "best.ckpt", folder, "--out", tmp_path / "r.jsonl")
    assert [row["path"] for row in read_json(tmp_path / "r.jsonl")] == [str(folder / name) for name in NAMES]


def test_overwrite_waits_for_the_lock_too(trained: Path, folder: Path, tmp_path: Path) -> None:
    first = Results(Json(None), tmp_path / "r.jsonl", "m")
    first.error("a.mp4", "x")
    assert classify(trained / "best.ckpt", folder, "--out", tmp_path / "r.jsonl", "--overwrite") == 2
    first.close()
    assert [row["path"] for row in read_json(tmp_path / "r.jsonl")] == ["a.mp4"]


def test_killed_in_the_middle_and_given_again(trained: Path, folder: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        (many / f"{number:03d}.mp4").write_bytes((folder / "4 ü.mp4").read_bytes())
    out = tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "a2video", "classify", str(trained / "best.ckpt"), str(many), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out.exists() and out.read_bytes().count(b"\n") >= 3):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = out.read_bytes().count(b"\n")
    assert done >= 3
    assert classify(trained / "best.ckpt", many, "--out", out) == 0
    rows = read_json(out)
    assert [Path(row["path"]).name for row in rows] == [f"{number:03d}.mp4" for number in range(60)]
    assert len({json.dumps(row["predictions"]) for row in rows}) == 1


def test_workers_change_nothing_and_survive_harm(
    trained: Path, folder: Path, tmp_path: Path, harmful_videos: None
) -> None:
    bad = tmp_path / "crash.mp4"
    bad.write_bytes((folder / "0 ü.mp4").read_bytes())
    alone, together = tmp_path / "0.jsonl", tmp_path / "2.jsonl"
    assert classify(trained / "best.ckpt", folder, "--out", alone) == 1
    assert classify(trained / "best.ckpt", folder, bad, "--out", together, "--num-workers", 2) == 1
    rows = read_json(together)
    assert rows[:-1] == read_json(alone)
    assert "was killed by signal 11" in rows[-1]["error"]


def test_every_video_of_a_test_list_as_in_the_test(
    trained: Path, small_data: Path, write_config: object, tmp_path: Path
) -> None:
    config = write_config(tmp_path)  # type: ignore[operator]
    main(["test", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt")])
    scores = read_scores(tmp_path / "out/scores.parquet")
    classify(trained / "best.ckpt", small_data / "test.csv", "--out", tmp_path / "r.jsonl")
    rows = read_json(tmp_path / "r.jsonl")
    assert len(rows) == 5
    for number, row in enumerate(rows):
        assert row["path"] == scores.paths[number]
        logits = scores.rows.logits[(scores.rows.views[:, VIDEO] == number) & scores.rows.is_own].astype(np.float64)
        assert len(logits) == 9
        expected = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0)
        for prediction in row["predictions"]:
            index = scores.class_names.index(prediction["label"])
            assert prediction["probability"] == pytest.approx(expected[index], abs=1e-6)


class TestAlongTime:
    def test_text_json_csv_and_subtitles(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        video = folder / "deep/er/5 ü.mp4"
        assert classify(trained / "best.ckpt", video, "--timeline") == 0
        name, *segments = capsys.readouterr().out.splitlines()
        assert name == str(video)
        assert segments[0].split()[:3] == ["0:00:00.0", "-", segments[0].split()[2]]
        assert segments[-1].split()[2] == "0:00:01.7"  # 50 frames at 30 in a second
        assert classify(trained / "best.ckpt", video, "--timeline", "--json") == 0
        row = json.loads(capsys.readouterr().out)
        assert row["duration_seconds"] == pytest.approx(50 / 30, abs=1e-4)
        assert row["segments"][-1]["end_seconds"] == row["duration_seconds"]
        assert [s["start_seconds"] for s in row["segments"]] == sorted(s["start_seconds"] for s in row["segments"])
        assert classify(trained / "best.ckpt", video, "--timeline", "--csv") == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert [r["label"] for r in rows] == [s["label"] for s in row["segments"]]
        assert classify(trained / "best.ckpt", folder, "--srt", tmp_path / "subtitles") == 1
        made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.srt"))
        assert made == sorted(f"subtitles/{name[:-4]}.srt" for name in NAMES if name != "broken.mp4")
        text = (tmp_path / "subtitles/deep/er/5 ü.srt").read_text(encoding="utf-8")
        assert text.startswith(f"1\n00:00:00,000 --> 00:00:0{rows[0]['end_seconds'].replace('.', ',')}\n")
        assert f"{rows[0]['label']} (" in text

    def test_annotated(self, trained: Path, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "new/copy.mp4"
        assert classify(trained / "best.ckpt", folder / "4 ü.mp4", "--annotate", out) == 0
        with open_video(out) as video:
            assert len(video) == 42

    def test_timelines_go_on_too(self, trained: Path, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "t.csv"
        assert classify(trained / "best.ckpt", folder, "--timeline", "--out", out) == 1
        whole = out.read_bytes()
        out.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 5])
        assert classify(trained / "best.ckpt", folder, "--timeline", "--out", out) == 0
        assert out.read_bytes() == whole


def test_options_that_do_not_fit(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("--stride-seconds", 1), "add --timeline"),
        (("--timeline", "--num-workers", 2), "--num-workers is not for timelines"),
        (("--time-limit-seconds", 2), "add --num-workers"),
        (("--overwrite",), "give one of them"),
        (("--out", tmp_path / "r.xlsx"), "ends in .jsonl or .csv"),
        (("--annotate", tmp_path / "x.mp4"), "7 were given"),
        (("--out", "/proc/nope/r.csv"), "cannot be written"),
        (("--shard", "0/3"), "expected K/N"),
        (("--json", "--csv"), "not allowed with"),
    ):
        assert classify(trained / "best.ckpt", folder, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_names_that_are_no_text(trained: Path, folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/odd \xff.mp4"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123 (a Path holds no bytes)
            file.write((folder / "0 ü.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system wants text")
    for out in (tmp_path / "r.jsonl", tmp_path / "r.csv"):
        assert classify(trained / "best.ckpt", tmp_path, "--out", out) == 0
        whole = out.read_bytes()
        assert classify(trained / "best.ckpt", tmp_path, "--out", out) == 0
        assert out.read_bytes() == whole
        assert b"odd \\udcff.mp4" in whole


class TestNothingIsLostOrCalledDone:
    def test_the_input_is_not_the_output(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        listed = tmp_path / "list.csv"
        listed.write_text(f"path\n{folder}/0 ü.mp4\n", encoding="utf-8")
        before = listed.read_bytes()
        assert classify(trained / "best.ckpt", listed, "--out", listed, "--overwrite") == 2
        assert "is to be read too" in capsys.readouterr().err
        assert listed.read_bytes() == before

    def test_files_that_exist_are_kept(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        video, copy, subtitles = folder / "0 ü.mp4", tmp_path / "copy.mp4", tmp_path / "0 ü.srt"
        copy.write_text("precious")
        subtitles.write_text("precious")
        assert classify(trained / "best.ckpt", video, "--annotate", copy) == 2
        assert classify(trained / "best.ckpt", video, "--srt", tmp_path) == 2
        assert capsys.readouterr().err.count("by --overwrite") == 2
        assert copy.read_text() == subtitles.read_text() == "precious"
        assert classify(trained / "best.ckpt", video, "--annotate", copy, "--srt", tmp_path, "--overwrite") == 0
        assert subtitles.read_text().startswith("1\n")

    def test_each_output_is_made_up_for(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        video, out, copy = folder / "2 ü.mp4", tmp_path / "t.jsonl", tmp_path / "copy.mp4"
        assert classify(trained / "best.ckpt", video, "--timeline", "--out", out) == 0
        whole = out.read_bytes()
        command = (trained / "best.ckpt", video, "--out", out, "--annotate", copy, "--srt", tmp_path / "s")
        assert classify(*command) == 0
        assert copy.exists()
        assert (tmp_path / "s/2 ü.srt").exists()
        assert out.read_bytes() == whole
        capsys.readouterr()
        assert classify(*command) == 0
        assert capsys.readouterr().err == f"nothing to do: {out} has it\n"

    def test_only_files_that_are_there_are_named(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert classify(trained / "best.ckpt", folder / "broken.mp4", "--annotate", tmp_path / "x.mp4") == 1
        assert "x.mp4" not in capsys.readouterr().err

    def test_a_timeline_is_written_whole_or_not(self, tmp_path: Path) -> None:
        code = f"""
import resource, signal
import numpy as np
from pathlib import Path
from a2video.inference.formats import SegmentCsv
from a2video.inference.outputs import Results
from a2video.inference.timeline import Timeline
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
probs = np.eye(2)[np.arange(40) // 4 % 2]
line = Timeline("a.mp4", ("x", "y"), np.stack([np.arange(40.0), np.arange(1.0, 41)], 1), probs, np.arange(41.0))
assert len(line.segments) == 10
results = Results(SegmentCsv(), Path({str(tmp_path / "s.csv")!r}), "m")
try:
    results.timeline(line)
finally:
    results.close()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "InputError" in done.stderr
        assert (tmp_path / "s.csv").read_text() == "path,start_seconds,end_seconds,label,confidence,error,model\n"


@pytest.mark.parametrize("name", ["line\nend.mp4", "return\rend.mp4"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_names_with_line_ends(trained: Path, folder: Path, tmp_path: Path, name: str, suffix: str) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / name).write_bytes((folder / "0 ü.mp4").read_bytes())
    out = tmp_path / f"r.{suffix}"
    assert classify(trained / "best.ckpt", tmp_path / "v", "--out", out) == 0
    whole = out.read_bytes()
    assert whole.count(b"\n") == (1 if suffix == "jsonl" else 2)
    assert classify(trained / "best.ckpt", tmp_path / "v", "--out", out) == 0
    assert out.read_bytes() == whole


def test_other_spellings_of_a_path_are_the_same_video(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert len(find_videos(["0 ü.mp4", "./0 ü.mp4", str(folder / "0 ü.mp4")])) == 1


def test_orders_to_a_terminal_are_spelled_out() -> None:
    assert shown("\x1b[31mred\n") == r"\x1b[31mred\n"


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "x"])
def test_seconds(trained: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert classify(trained / "best.ckpt", "a.mp4", "--timeline", f"--stride-seconds={value}") == 2
    assert "expected seconds" in capsys.readouterr().err
