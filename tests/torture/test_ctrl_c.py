"""Ctrl-C at a random moment of each command: status 130, one sentence, no process and no half-written file is left."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import av
import pytest
import torch
from campaign import QUIET, TINY, Running, fault, fit, lines_of, status
from conftest import REPOSITORY, moving_square, write_video
from PIL import Image
from test_interruption import assert_same_end, rows

Writer = Callable[[Path], Path]
NUM_VIDEOS = 60
ENDS = ("a2video: interrupted", "a2video: Ctrl-C: stopped after step", "Stopped; run it again")
IN_STEP_3 = {"A2VIDEO_FAULT": "0 a2video.recognizer:Recognizer.training_step 3 SIGINT"}
BATCHES = ["--data.num_workers=2", "--data.batch_size=1", "--data.protocol=Uniform10x3", *QUIET]
COMMANDS = {  # and what is waited for before a random time goes by; {} is filled in by `command_of`
    "fit": ("fit --config {config} {tiny} --trainer.max_epochs=200 {out}", "out/logs/version_0/metrics.csv"),
    "fit on 2 ranks": (
        "fit --config {config} {tiny} --trainer.max_epochs=200 {out} --trainer.devices=2 --trainer.strategy=ddp",
        "out/logs/version_0/metrics.csv",
    ),
    "test": ("test --config {config} {trained} {many} {out}", "test: "),
    "validate": ("validate --config {config} {trained} {many}", "val: "),
    "predict": ("predict --config {config} {trained} {many} {out}", "predict: "),
    "classify": ("classify {checkpoint} {videos} --num-workers=2 --out out.jsonl", "out.jsonl"),
    "classify --timeline": ("classify {checkpoint} {videos} --srt subtitles", "subtitles"),
    "export": ("export {checkpoint} --to onnx --out out.onnx", ""),
    "attend": ("attend {checkpoint} {video} --out out.html", ""),
    "serve": ("serve {checkpoint} --port=0", "until Ctrl-C"),
    "show-batch": ("show-batch --config {config} --out batch.png --data.num_workers=2", ""),
    "doctor": ("doctor --config {config} --data.num_workers=2", ""),
    "splits": ("splits 1 2 -- test --config {config} {trained} --trainer.default_root_dir={{split}}", "split 1"),
    "verify.py": ("{prep}/verify.py --list {videos} --out out --workers=2", "video"),
    "transcode.py": ("{prep}/transcode.py --list {videos} --out out --workers=2 --short-side=16", "video"),
    "motion.py": ("{prep}/motion.py --out out", "video"),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two classes of videos."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(NUM_VIDEOS):
        name = ("left", "right")[number % 2]
        write_video(folder / name / f"{number}.mp4", moving_square((-1, 1)[number % 2], seed=number))
    return folder


def command_of(text: str, config: Path, checkpoint: Path, videos: Path) -> list[str]:
    filled = text.format(
        config=quote(str(config)),
        tiny=" ".join([*TINY, *QUIET, "--data.num_workers=2"]),
        out="--trainer.default_root_dir=out",
        trained=quote(f"--ckpt_path={checkpoint}"),
        checkpoint=quote(str(checkpoint)),
        many=shlex.join([*(f"--data.{name}_list={videos}" for name in ("test", "val", "predict")), *BATCHES]),
        videos=quote(str(videos)),
        video=quote(str(videos / "left/0.mp4")),
        prep=quote(str(REPOSITORY / "data_prep")),
    )
    return shlex.split(filled)


def assert_whole(folder: Path) -> None:
    """Every file under a final name can be read to its end, and nothing unfinished is left."""
    for path in folder.rglob("*"):
        assert not path.name.endswith(".part"), path
        assert not path.name.startswith(".part-"), path
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".csv":
            lines_of(path)
        elif path.suffix == ".jsonl":
            assert all(json.loads(line) for line in path.read_text().splitlines())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.suffix == ".mp4":
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0))


def interrupt(running: Running, wait_for: str, folder: Path, seconds: float) -> None:
    running.wait_for(lambda: running.ready.exists() or "data_prep" in str(running.process.args))
    if wait_for:
        running.wait_for(lambda: wait_for in running.text or (folder / wait_for).exists())
    time.sleep(seconds)
    running.signal_all(signal.SIGINT)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", COMMANDS)
@fault(
    "Ctrl-C in {name} (random moment {seed})",
    before="one moment each. fit, test, validate, predict: status 1; "
    "motion.py: tracebacks, status -2; classify: once not heard; the others: as now",
    now="status 130, one sentence, no process left, no half file under a final name",
)
def test_ctrl_c(write_config: Writer, trained: Path, videos: Path, tmp_path: Path, name: str, seed: int) -> None:
    rng = random.Random(f"{name} {seed}")
    text, wait_for = COMMANDS[name]
    command = command_of(text, write_config(tmp_path / "config"), trained / "best.ckpt", videos)
    temporary = Path(tempfile.mkdtemp())  # sockets need a short name
    running = Running(command, tmp_path, TMPDIR=str(temporary))
    interrupt(running, wait_for, tmp_path, rng.uniform(0, 1) if wait_for else rng.uniform(0, 5))
    code = running.end(60)
    assert running.left() == []
    assert "Traceback" not in running.text, running.text
    assert_whole(tmp_path)
    assert [path for path in temporary.iterdir() if "torchinductor" not in path.name] == []
    shutil.rmtree(temporary)
    sentence = running.last_line.rpartition("\r")[2]
    if code and "Wrote" not in sentence:  # or it was quicker, and Python on its way out
        assert code == 130, running.text
        assert sentence.startswith(ENDS)


@fault(
    "Ctrl-C in fit, then gone on with",
    before="the steps since the last checkpoint were lost",
    now="it saves after the step; gone on with, it ends as if nobody had pressed it",
)
def test_ctrl_c_in_fit_loses_no_step(write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    ends = {}
    for name, fault_ in (("whole", {}), ("parts", IN_STEP_3)):
        ends[name] = tmp_path / name
        command = fit(config, ends[name], "--trainer.log_every_n_steps=1", "--data.batch_size=2")
        code, text = status(command, tmp_path, **fault_)
        if fault_:
            assert code == 130, text
            assert "a2video: Ctrl-C: stopped after step 3 (epoch 0, 3 batches of it done) and saved " in text
            code, text = status([*command, "--ckpt_path=last"], tmp_path)
        assert code == 0, text
    assert_same_end(ends["parts"], ends["whole"])
    assert rows(ends["parts"]) == rows(ends["whole"])
