"""verify.py: good videos listed with their labels and known to the cache, bad ones with the reason, none touched."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video
from PIL import Image

from a2video.data.metadata import MetadataCache, VideoRecord
from a2video.data.readers import open_video
from a2video.data.video_list import read_video_list

DATA_PREP = Path(__file__).resolve().parents[1] / "data_prep"
sys.path.insert(0, str(DATA_PREP))
import verify  # noqa: E402
from checks import Facts, check_video  # noqa: E402

GOOD = ["left é's/-dash.mp4", 'left é\'s/a "b" 日本.mp4', "right/c,d.mp4"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        verify.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two classes, three good videos of 60, 24 and 24 frames, and four bad ones."""
    root = tmp_path / "the videos"
    write_video(root / GOOD[0], moving_square(1, num_frames=60), fps=30)
    write_video(root / GOOD[1], moving_square(-1), fps=25)
    shutil.copy(root / GOOD[1], root / "left é's" / "z.txt")  # no video by its name
    (root / "right").mkdir()
    data = shutil.copy(root / GOOD[1], root / GOOD[2]).read_bytes()
    (root / "right" / "cut off.mp4").write_bytes(data[: len(data) // 2])
    (root / "right" / "damaged.mp4").write_bytes(damaged(data))
    (root / "right" / "empty.mp4").write_bytes(b"")
    (root / "right" / "text.mp4").write_text("not found\n" * 100)
    return root


def damaged(data: bytes) -> bytes:
    """With the second half of its pictures overwritten."""
    start = data.index(b"mdat") + 4
    end = data.index(b"moov", start) - 4
    middle = (start + end) // 2
    return data[:middle] + bytes(end - middle) + data[end:]


def test_files(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(videos)
    out = tmp_path / "out"
    assert run("--list", videos, "--out", out, "--workers", 2) == 1
    assert files(videos) == before
    assert sorted(path.name for path in out.iterdir()) == ["bad_videos.csv", "list.csv", "metadata.sqlite"]
    assert rows(out / "list.csv")[1:] == [[f"../the videos/{path}", path.split("/")[0]] for path in GOOD]
    header, *bad = rows(out / "bad_videos.csv")
    assert header == ["path", "reason"]
    assert [path for path, _ in bad] == [f"right/{name}.mp4" for name in ("cut off", "damaged", "empty", "text")]
    assert "no video found in its 0 bytes" in bad[2][1]
    assert "no video found in its 1000 bytes" in bad[3][1]
    assert all(str(videos) not in reason for _, reason in bad)
    printed = capsys.readouterr().out
    assert f"Good: 3 of 7 videos, 0 of them known from before; see {out}\nBad:  4\n" in printed
    assert "        3  no video found in its N bytes (Invalid data found when processing input)" in printed
    assert "duration   0 h 0 min 4 s in all" in printed
    assert "frames     min 24, median 24, max 60" in printed
    assert "fps        25 (2), 30 (1)" in printed
    assert "size       32x32 (3)" in printed
    assert "longest distance min 24, median 24, max 60 frames" in printed
    assert "Slow: 1 with keyframes more than 48 frames apart" in printed


def test_the_list_and_the_cache_serve_training(videos: Path, tmp_path: Path) -> None:
    run("--list", videos, "--out", tmp_path / "out")
    listed = read_video_list(tmp_path / "out" / "list.csv")
    assert listed.class_names == ("left é's", "right")
    assert listed.labels == (0, 0, 1)
    cache = MetadataCache(tmp_path / "out" / "metadata.sqlite")
    record = cache.get(listed.paths[0])
    assert record is not None
    assert (record.index.num_frames, record.fps, record.width, record.height, record.rotation) == (60, 30, 32, 32, 0)
    assert record.duration_seconds == pytest.approx(2)
    assert cache.get(videos / "right" / "damaged.mp4") is None
    with open_video(listed.paths[0], cache=cache) as with_cache, open_video(listed.paths[0]) as without:
        assert np.array_equal(with_cache.get_frames([59, 0]), without.get_frames([59, 0]))


def test_run_again(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    decoded: list[Path] = []
    run_jobs = verify.run_jobs
    monkeypatch.setattr(verify, "run_jobs", lambda f, jobs, *more: decoded.extend(jobs) or run_jobs(f, jobs, *more))
    arguments = ["--list", videos, "--out", tmp_path / "out"]
    bad = [videos / "right" / f"{name}.mp4" for name in ("cut off", "damaged", "empty", "text")]
    run(*arguments)
    first = rows(tmp_path / "out" / "list.csv")
    decoded.clear()
    assert run(*arguments) == 1
    assert "Good: 3 of 7 videos, 3 of them known from before" in capsys.readouterr().out
    assert decoded == bad
    assert rows(tmp_path / "out" / "list.csv") == first
    os.utime(videos / GOOD[1], ns=(1, 1))
    decoded.clear()
    run(*arguments)
    assert decoded == [videos / GOOD[1], *bad]
    decoded.clear()
    run(*arguments, "--again")
    assert len(decoded) == 7


def test_all_good_is_status_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "p.png")
    write_video(tmp_path / "v.mp4", moving_square(1))
    (tmp_path / "some.csv").write_text("path\nv.mp4\np.png\n")
    assert run("--list", tmp_path / "some.csv", "--out", tmp_path / "out") == 0
    assert rows(tmp_path / "out" / "list.csv") == [["path"], ["../v.mp4"], ["../p.png"]]
    assert rows(tmp_path / "out" / "bad_videos.csv") == [["path", "reason"]]
    assert "size       32x32 (1), 30x20 (1)" in capsys.readouterr().out


def hang_or_crash(path: Path) -> VideoRecord | Facts:
    if path.name == "-dash.mp4":
        time.sleep(60)
    if path.name == "c,d.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return check_video(path)


def test_hang_and_crash(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(verify, "check_video", hang_or_crash)
    assert run("--list", videos, "--out", tmp_path / "out", "--time-limit", 2, "--workers", 2) == 1
    reasons = dict(rows(tmp_path / "out" / "bad_videos.csv"))
    assert reasons["left é's/-dash.mp4"] == "takes longer than 2 s"
    assert reasons["right/c,d.mp4"] == "killed its process with signal 11 (SIGSEGV)"
    assert [row[0] for row in rows(tmp_path / "out" / "list.csv")[1:]] == [f"../the videos/{GOOD[1]}"]
    assert "        1  killed its process with signal 11 (SIGSEGV)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "{root}/nothing.csv", "--out", "{root}/out"], "nothing.csv does not exist"),
        (["--list", "{root}/the videos", "--out", "{root}/the videos/out"], "lies in the folder of videos"),
        (["--list", "{root}/list.csv", "--out", "{root}"], "would be overwritten"),
        (["--list", "{root}/the videos", "--out", "{root}/list.csv"], "cannot be made: File exists"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    write_video(tmp_path / "the videos" / "a.mp4", moving_square(1, num_frames=2))
    (tmp_path / "list.csv").write_text("path\nthe videos/a.mp4\n")
    assert run(*(argument.format(root=tmp_path) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert (tmp_path / "list.csv").read_text() == "path\nthe videos/a.mp4\n"


def test_shared_videos(shared: Path, tmp_path: Path) -> None:
    assert run("--list", shared / "videos", "--out", tmp_path) == 1
    assert [path for path, _ in rows(tmp_path / "bad_videos.csv")[1:]] == ["corrupted.mp4"]
    assert len(rows(tmp_path / "list.csv")) == 9
