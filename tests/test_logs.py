"""metrics.csv, TensorBoard's events and the learning curves of a run that stops and goes on."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from test_interruption import fit_command, status_of

from a2video.curves import draw_learning_curves, read_curves
from a2video.logs import parts


def events(path: Path) -> list[Event]:
    """Of a file: a number of bytes and its checksum, the bytes and their checksum, and so on."""
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_a_run_that_stops_and_goes_on_has_one_record(
    write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = fit_command(write_config(tmp_path), "--model.optimizer.lr_factors={'*':0.1,'6':1.0}")
    out = tmp_path / "out"
    assert status_of([*command, "--model.network.nan_at=12"]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"Learning curves: {out / 'learning_curves.png'}"
    assert "the training loss is nan at step 11" in printed.err.splitlines()[-1]
    (out / "learning_curves.png").unlink()
    assert status_of([*command, "--ckpt_path=last"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Learning curves: {out / 'learning_curves.png'}"

    logs = out / "logs"
    assert parts(logs) == [logs / "version_0", logs / "version_1"]
    curves, resumed = read_curves(parts(logs), steps_per_epoch=8)
    assert resumed == [9 / 8]
    assert curves["train/loss"][0] == [step / 8 for step in range(1, 17)]
    assert curves["val/top1"][0] == curves["train/epoch_loss"][0] == [1, 2]
    assert curves["lr"][1][1] == pytest.approx(0.5 * (1 + math.cos(math.pi / 16)) / 2)  # of the second update
    assert curves["lr_x0.1"][1] == pytest.approx([rate / 10 for rate in curves["lr"][1]])

    first, second = sorted((logs / "version_0").glob("events.*"), key=lambda path: path.stat().st_mtime)
    assert not list((logs / "version_1").glob("events.*"))
    assert not list(logs.rglob("hparams.yaml"))
    tags = {value.tag for event in events(first) for value in event.summary.value}
    assert {"train/loss", "train/top1", "val/loss", "val/top1", "lr", "lr_x0.1", "train/data_wait"} <= tags
    starts = [event.step for event in events(second) if event.session_log.status == SessionLog.START]
    assert starts == [8]  # TensorBoard forgets what the first part had beyond
    steps = [event.step for event in events(second) if event.summary.value and event.summary.value[0].tag == "lr"]
    assert steps == list(range(8, 16))

    assert status_of([*command, "--overwrite=true", "--trainer.max_epochs=1"]) == 0
    assert parts(logs) == [logs / "version_2"]
    assert list((logs / "version_2").glob("events.*"))


def write_part(folder: Path, checkpoint: str, table: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"trainer:\n  x: 1\nckpt_path: {checkpoint}\n")
    (folder / "metrics.csv").write_text(table)
    return folder


def test_curves_of_two_parts_and_of_little(tmp_path: Path) -> None:
    header = "epoch,lr,step,train/epoch_loss,train/loss,train/top1,val/loss,val/top1\n"
    write_part(tmp_path / "version_8", "null", header + "0,0.1,3,,9.0,,,\n")
    old = write_part(
        tmp_path / "version_9",
        "null",
        header + "0,0.1,0,,4.0,,,\n0,0.1,1,,3.0,,,\n0,,1,,,,2.5,0.5\n0,,1,3.5,,0.25,,\n1,0.1,2,,2.0,,,\n1,0.1,3,,1.9",
    )
    new = write_part(tmp_path / "version_10", "x/last.ckpt", header + "1,0.2,2,,2.5,,,\n1,0.2,3,,2.25,,,\n")
    (tmp_path / "version_11").mkdir()  # killed before anything
    assert parts(tmp_path) == [old, new]
    curves, resumed = read_curves([old, new], steps_per_epoch=2)
    assert curves == {
        "train/loss": ([0.5, 1.0, 1.5, 2.0], [4.0, 3.0, 2.5, 2.25]),
        "lr": ([0.5, 1.0, 1.5, 2.0], [0.1, 0.1, 0.2, 0.2]),
        "val/loss": ([1.0], [2.5]),
        "val/top1": ([1.0], [0.5]),
        "train/epoch_loss": ([1.0], [3.5]),
        "train/top1": ([1.0], [0.25]),
    }
    assert resumed == [1.5]
    path = draw_learning_curves([old, new], 2, tmp_path / "curves.png")
    assert path is not None
    with Image.open(path) as picture:
        drawn = {colour for _, colour in picture.convert("RGB").getcolors(9999)}
    assert {(0xDD, 0x6B, 0x20), (0x2B, 0x6C, 0xB0), (0x2F, 0x85, 0x5A)} <= drawn  # validation, training, rate
    assert draw_learning_curves([tmp_path / "version_11"], 2, tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
    write_part(tmp_path / "version_12", "null", "epoch,step,train/loss\n0,0,1.5\n")  # stopped in its first epoch
    assert draw_learning_curves(parts(tmp_path), 2, tmp_path / "one.png") is not None
