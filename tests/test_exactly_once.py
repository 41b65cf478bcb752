"""Whatever the ranks, workers, batches and interruptions: the same results, and each video read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from made_scores import ABOUT, made_scores
from test_cli import fails

from a2video import score_parts
from a2video.cli import main
from a2video.data.protocols import Uniform10x3
from a2video.data.video_list import read_video_list
from a2video.data.views import load_test_views
from a2video.errors import InputError
from a2video.inference.classifier import VideoClassifier
from a2video.inference.scoring import score_views
from a2video.rescore import choose_views
from a2video.results import summarize, video_probs
from a2video.score_files import read_scores
from a2video.score_parts import ScoreParts
from a2video.scores import CLIP, CROP

Writer = Callable[[Path], Path]
KILLED_AFTER = 4  # of 5 videos
KILL = f"""
import os, signal, sys
from a2video import score_parts
from a2video.cli import main

score_parts.WRITE_EVERY_SECONDS = 0
write = score_parts.write_rows

def write_and_die(path, *rest):
    write(path, *rest)
    if len(list(path.parent.glob("*.parquet"))) == {KILLED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)

score_parts.write_rows = write_and_die
main(sys.argv[1:])
"""


def command(config: Path, trained: Path, *options: str) -> list[str]:
    reader = "--data.reader=counting_reader.CountingReader"
    quiet = "--trainer.enable_progress_bar=false"
    return [
        "test",
        "--config",
        str(config),
        f"--ckpt_path={trained / 'best.ckpt'}",
        "--num_threads=1",
        reader,
        quiet,
        *options,
    ]


def run(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    path = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=250
    )


def opened(folder: Path) -> list[str]:
    path = folder / "opened.txt"
    return [Path(line).name for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def alone(trained: Path, write_config: Writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a test in this process, without workers."""
    config = write_config(tmp_path_factory.mktemp("alone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(config.parent)
        main(command(config, trained))
    assert len(opened(config.parent)) == 5
    return config.parent / "out"


def same_files(folder: Path, other: Path) -> bool:
    names = ("scores.parquet", "results.json", "per_class.csv", "test_predictions.csv")
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize(("num_ranks", "num_workers", "batch_size", "together"), [(2, 0, 31, 16), (3, 2, 1, 7)])
def test_ranks_workers_and_batches_change_no_bit(
    alone: Path,
    trained: Path,
    write_config: Writer,
    tmp_path: Path,
    num_ranks: int,
    num_workers: int,
    batch_size: int,
    together: int,
) -> None:
    devices = [f"--trainer.devices={num_ranks}", "--trainer.strategy=ddp"]
    options = [*devices, f"--data.num_workers={num_workers}", f"--data.batch_size={batch_size}"]
    options.append(f"--data.test_batch_size={together}")
    done = run(tmp_path, ["-m", "a2video", *command(write_config(tmp_path), trained, *options)])
    assert done.returncode == 0, done.stderr
    if together == 16:  # as in `alone`
        assert same_files(tmp_path / "out", alone)
    found, wanted = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "out", alone))
    assert {**found, "test_batch_size": 16} == {**wanted, "test_batch_size": 16}
    logits = [read_scores(folder).rows.logits for folder in (tmp_path / "out", alone)]
    assert np.abs(logits[0] - logits[1]).max() < 1e-6
    assert sorted(opened(tmp_path)) == sorted(opened(alone.parent))


def test_a_plain_loop_gives_the_same(alone: Path, trained: Path, small_data: Path) -> None:
    classifier = VideoClassifier.load(trained / "best.ckpt", "cpu")
    videos = read_video_list(small_data / "test.csv", class_names=classifier.class_names)
    num_right = num_right_views = 0
    probs = []
    for path, label in zip(videos.paths, videos.labels, strict=True):
        ranked = classifier(path).ranked
        num_right += ranked[0][0] == videos.class_names[label]
        probs.append([dict(ranked)[name] for name in videos.class_names])
        views = score_views(
            classifier.network, classifier.preprocessing, load_test_views(path, classifier.preprocessing)
        )
        num_right_views += int((views.argmax(1) == label).sum())
    scores = read_scores(alone)
    found = video_probs(scores.rows, scores.about.average)
    assert np.abs(found - np.array(probs)).max() < 1e-6  # the number of clips in a forward pass differs
    results = json.loads((alone / "results.json").read_text())
    assert results["video_top1"] == round(num_right / 5, 6)
    assert results["clip_top1"] == round(num_right_views / 45, 6)
    confidence = [bin["confidence"] * bin["videos"] for bin in results["calibration"]["bins"]]
    assert sum(confidence) == pytest.approx(sum(max(of_video) for of_video in probs), abs=1e-3)
    assert results == summarize(scores)


def test_killed_and_run_again_on_more_ranks(alone: Path, trained: Path, write_config: Writer, tmp_path: Path) -> None:
    """One video is left for two ranks; a part that was damaged meanwhile makes it two."""
    config = write_config(tmp_path)
    killed = run(tmp_path, ["-c", KILL, *command(config, trained)])
    assert killed.returncode == -9, killed.stderr
    parts = sorted((tmp_path / "out/scores.parts").glob("*.parquet"))
    assert len(parts) == KILLED_AFTER
    assert not (tmp_path / "out/results.json").exists()
    first_opened = opened(tmp_path)
    assert len(first_opened) == KILLED_AFTER
    (tmp_path / "opened.txt").unlink()
    (tmp_path / "out/scores.parts/.killed while writing.parquet.7.part").write_bytes(b"PAR1")
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    again = run(tmp_path, ["-m", "a2video", *command(config, trained, *devices)])
    assert again.returncode == 0, again.stderr
    assert f"{KILLED_AFTER} of 5 videos were scored by this test before" in again.stderr
    assert same_files(tmp_path / "out", alone)
    assert sorted(first_opened + opened(tmp_path)) == sorted(opened(alone.parent))
    assert not (tmp_path / "out/scores.parts").exists()


def test_stopped_without_being_killed(
    alone: Path, trained: Path, write_config: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What is pending is written; a damaged part is left out; a finished test reads nothing; --overwrite all."""
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path)
    read = VideoCounter(stop_at=3)
    monkeypatch.setattr("counting_reader.CountingReader.read", read)
    with pytest.raises(SystemExit):
        main(command(config, trained))
    (part,) = (tmp_path / "out/scores.parts").glob("*.parquet")
    content = part.read_bytes()
    for damaged, num_read in ((content[: len(content) // 2], 5), (content, 3)):
        part.parent.mkdir(exist_ok=True)
        for path in (tmp_path / "out").glob("*.*"):
            if path.is_file():
                path.unlink()
        part.write_bytes(damaged)
        read.stop_at = read.count = 0
        main(command(config, trained))
        assert read.count == num_read
        assert same_files(tmp_path / "out", alone)
    read.count = 0
    main(command(config, trained))
    assert read.count == 0
    assert same_files(tmp_path / "out", alone)
    main(command(config, trained, "--overwrite=true"))
    assert read.count == 5
    other = command(config, trained, "--data.protocol=a2video.data.protocols.OneCentreClip")
    message = fails(capsys, *other)
    assert "scores.parquet holds the test of" in message or "results.json holds the test of" in message
    assert "with another protocol: choose another --trainer.default_root_dir, or replace it by --overwrite" in message
    assert same_files(tmp_path / "out", alone)


class VideoCounter:
    """Stands in for CountingReader.read; at `stop_at` it is as if the user pressed Ctrl-C."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.count = 0

    def __get__(self, reader: object, kind: type) -> Callable[..., None]:
        def read(*arguments: object) -> None:
            from a2video.data.pyav_reader import PyAVReader

            self.count += 1
            if self.count == self.stop_at:
                raise KeyboardInterrupt
            PyAVReader.read(reader, *arguments)  # type: ignore[arg-type]

        return read


def test_centre_of_ten_clips_is_the_test_of_one(trained: Path, write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    found = {}
    for name in ("Uniform10x3", "OneCentreClip"):
        folder = tmp_path / name
        options = [f"--data.protocol=a2video.data.protocols.{name}", f"--trainer.default_root_dir={folder}"]
        main(["test", "--config", str(config), f"--ckpt_path={trained / 'best.ckpt'}", *options])
        found[name] = read_scores(folder)
    many, one = found["Uniform10x3"], found["OneCentreClip"]
    assert len(many.rows) == 5 * 31
    center = choose_views(many, "center")
    assert np.array_equal(center.rows.logits, one.rows.logits)  # to the last bit
    assert np.array_equal(center.rows.views, one.rows.views)
    numbers = [{k: v for k, v in summarize(s).items() if k != "protocol"} for s in (center, one)]
    assert numbers[0] == numbers[1]
    assert summarize(many)["center_top1"] == summarize(one)["video_top1"]


def test_four_of_ten_clips_are_those_of_a_test_with_four(trained: Path, small_data: Path) -> None:
    p = VideoClassifier.load(trained / "best.ckpt", "cpu").preprocessing
    path = small_data / "test/left/0 ü.mp4"
    ten, four = (load_test_views(path, replace(p, num_clips=n, num_crops=3)) for n in (10, 4))
    assert Uniform10x3(p).num_views == 31
    assert np.array_equal(ten.numpy().reshape(10, 3, *ten.shape[1:])[[0, 3, 6, 9]].reshape(four.shape), four.numpy())


def test_a_replaced_checkpoint_and_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    difference = score_parts._difference
    assert difference(ABOUT, ABOUT.to_dict()) is None
    assert difference(ABOUT, replace(ABOUT, hardware="GPU", checkpoint="elsewhere", commit="c").to_dict()) is None
    assert difference(ABOUT, replace(ABOUT, checkpoint_sha256="c1").to_dict()) == "checkpoint_sha256"
    for name, other in (
        ("precision", "bf16-mixed"),
        ("folder", "/other"),
        ("channels_last", True),
        ("test_batch_size", 8),
    ):
        assert difference(ABOUT, replace(ABOUT, **{name: other}).to_dict()) == name
    assert difference(ABOUT, replace(ABOUT, versions={"torch": "1"}).to_dict()) == "versions"
    assert difference(ABOUT, {}) == "protocol"
    assert difference(ABOUT, {**ABOUT.to_dict(), "versions": ["torch"]}) == "versions"
    both = ABOUT.and_also(replace(ABOUT, hardware="GPU", commit="c")).and_also(ABOUT)
    assert (both.hardware, both.commit) == ("CPU and GPU", "c")
    results = tmp_path / "results.json"
    results.write_text(json.dumps(replace(ABOUT, checkpoint_sha256="c1").to_dict()))
    parts = ScoreParts(tmp_path, ABOUT.checkpoint)
    parts.about = ABOUT
    assert len(parts._resume(5)) == 0
    assert not results.exists()


def test_a_part_that_cannot_be_written_stops_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scores.parts").write_text("a file where the folder should be")
    parts = ScoreParts(tmp_path, ABOUT.checkpoint)
    parts._about = ABOUT
    parts._pending = [made_scores([[[0.5, 0.5]]], [0]).rows]
    parts._write()
    assert "some videos will be scored again: " in capsys.readouterr().out


def test_a_score_file_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    foreign = tmp_path / "scores.parquet"
    foreign.write_text("of somebody else")
    parts = ScoreParts(tmp_path, ABOUT.checkpoint)
    parts.about = ABOUT
    with pytest.raises(InputError, match=r"scores\.parquet cannot be gone on with .* replace it by --overwrite=true"):
        parts._resume(5)
    assert foreign.read_text() == "of somebody else"


def test_five_damaged_of_78(shared: Path, write_config: Writer, trained: Path, tmp_path: Path) -> None:
    """Coverage 73/78; both accuracies; the five are named with reasons."""
    listed = read_video_list(shared / "data/surveillance_fights/test.csv")
    assert len(listed) == 78
    bad = [listed.paths[place] for place in (0, 7, 21, 44, 77)]
    rows = ["path,label"]
    for number, (path, label) in enumerate(zip(listed.paths, listed.labels, strict=True)):
        video = Path(path)
        if path in bad:
            video = tmp_path / f"damaged {number}.mp4"
            video.write_bytes(Path(path).read_bytes()[:2000])
        rows.append(f"{video.resolve()},{('left', 'right')[label]}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = [f"--data.test_list={tmp_path / 'list.csv'}", "--data.protocol=a2video.data.protocols.OneCentreClip"]
    config = write_config(tmp_path)
    main(["test", "--config", str(config), f"--ckpt_path={trained / 'best.ckpt'}", "--data.num_workers=2", *options])
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert (results["num_scored"], results["num_videos"], results["coverage"]) == (73, 78, 73 / 78)
    for level in ("center", "clip", "video"):
        assert results[f"{level}_top1_all"] == pytest.approx(results[f"{level}_top1"] * 73 / 78, abs=1e-6)
    assert [Path(failed["path"]).name for failed in results["failed"]] == [
        f"damaged {n}.mp4" for n in (0, 7, 21, 44, 77)
    ]
    assert all(failed["error"].startswith(failed["path"]) for failed in results["failed"])
    assert len(read_scores(tmp_path / "out").rows.views[:, [CLIP, CROP]]) == 73
