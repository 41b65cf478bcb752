"""`a2video doctor` through the command line, and what it makes of measurements."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_doctor_checks import GOOD, PLAN

from a2video.cli import main
from a2video.data.limits import GIB
from a2video.doctor_lists import identical
from a2video.doctor_trial import configured, suggest_batch_size, suggest_workers

Findings = list[dict[str, str]]


def examined(capsys: pytest.CaptureFixture[str], *options: str | Path) -> tuple[int, Findings]:
    """Exit status and findings."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["doctor", "--json", *map(str, options)])
    printed = json.loads(capsys.readouterr().out)
    levels = [finding["level"] for finding in printed["findings"]]
    assert printed["counts"] == {level: levels.count(level) for level in ("ok", "note", "warning", "error")}
    return exit_info.value.code, printed["findings"]


def of_level(findings: Findings, level: str) -> list[str]:
    return [finding["text"] for finding in findings if finding["level"] == level]


def test_the_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["doctor"])
    assert exit_info.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  ok       torch 2")
    assert lines[-1].endswith(" warnings, 0 errors") or lines[-1] == "1 warning, 0 errors"


def test_an_experiment_that_is_well(
    write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/last.ckpt").write_text("of a run that is to be left alone")
    status, findings = examined(capsys, "--config", config, "--model.recompute", '["conv2"]')
    assert (status, of_level(findings, "error")) == (0, [])
    texts = [finding["text"] for finding in findings]
    for said in (
        "data.train_list: 8 videos of 2 classes",
        "no video of data.test_list is in data.train_list",
        "8 of 8 videos tried can be read, ",
        "a step of 4 videos takes ",
        "in precision 32-true; first loss 0.",
        "workers busy, data.num_workers is 0",
    ):
        assert sum(said in text for text in texts) == 1, said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["last.ckpt"]
    assert (tmp_path / "out/last.ckpt").read_text() == "of a run that is to be left alone"


def test_an_experiment_that_is_not(
    write_config: Callable[[Path], Path], small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on test videos (one by its content alone), a video missing, one broken, a label that is no class."""
    train, test = sorted(small_data.glob("train/*/*.mp4")), sorted(small_data.glob("test/*/*.mp4"))
    shutil.copy(train[0], tmp_path / "copy.mp4")
    (tmp_path / "broken.mp4").write_text("no video")
    listed = [f"{path},{path.parent.name}" for path in [*train, test[0]]]
    (tmp_path / "train.csv").write_text("\n".join(["path,label", *listed, "gone.mp4,left", "broken.mp4,right", ""]))
    (tmp_path / "test.csv").write_text(f"path,label\n{test[0]},left\n{tmp_path}/copy.mp4,left\n{test[1]},left\n")
    (tmp_path / "val.csv").write_text(f"path,label\n{test[2]},left\n{test[3]},up\n")
    lists = [f"--data.{name}_list={tmp_path}/{name}.csv" for name in ("train", "val", "test")]
    status, findings = examined(capsys, "--config", write_config(tmp_path), *lists)
    assert status == 1
    missing, label, overlap, unread = of_level(findings, "error")[:4]
    assert missing.endswith(f"of which 1 are missing: {tmp_path}/gone.mp4")
    assert "val.csv line 3: label 'up' is none of the 2 classes" in label
    assert overlap == (
        f"2 of 3 videos of data.test_list are trained on: {test[0]}, {tmp_path}/copy.mp4 "
        f"(the same content as {train[0]})"
    )
    assert "cannot be read" in unread
    assert "broken.mp4" in unread
    assert any(text.startswith("9 of 10 videos tried can be read, ") for text in of_level(findings, "note"))


def test_an_experiment_that_is_refused(
    write_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    status, findings = examined(capsys, "--config", config, "--model.optimizer.momentum", "2")
    assert status == 1
    assert of_level(findings, "error") == [
        "the configuration is refused: expected model.optimizer.momentum in [0, 1), got 2.0"
    ]
    status, findings = examined(capsys, "--config", config, "--model.network.num_classes", "3")
    assert status == 1
    assert "the network gives 3 logits but the data has 2 classes" in of_level(findings, "error")[0]
    for option, said in (
        ("--data.batch_size=9", "data.batch_size 9 exceeds the 8 videos of data.train_list"),
        ("--trainer.devices=0,1,5", "data.batch_size 4 exceeds the 8 videos of data.train_list shared by 3 devices"),
        ("--trainer.num_nodes=3", "data.batch_size 4 exceeds the 8 videos of data.train_list shared by 3 devices"),
    ):
        status, findings = examined(capsys, "--config", config, option)
        assert (status, of_level(findings, "error")) == (1, [said])


def test_devices_are_counted_as_lightning_does(write_config: Callable[[Path], Path], tmp_path: Path) -> None:
    patient = configured(["--config", str(write_config(tmp_path)), "--trainer.devices", "0,1"], str(tmp_path))
    counts = [patient.num_devices(GOOD)]
    counts += [replace(patient, devices=asked).num_devices(GOOD) for asked in ("3,", "3", 2, [0, 2, 5], "auto", -1)]
    assert counts == [2, 1, 3, 2, 3, 1, 1]


def test_batch_size_and_workers_from_measurements() -> None:
    finding = suggest_batch_size([(4, 2 * GIB), (8, 3 * GIB)], 20 * GIB)  # 1 GiB and a quarter for each video
    assert finding.text == "each video of a batch takes 256 MiB: 80% of 20 GiB would be filled by data.batch_size 60"
    finding = suggest_batch_size([(4, 2 * GIB), (8, 3 * GIB)], 3 * GIB)
    assert (finding.level, finding.advice[:26]) == ("warning", "Set data.batch_size to 5, ")
    assert suggest_batch_size([(1, GIB)], GIB).level == "note"
    assert suggest_workers(3.2, PLAN, 16).level == "ok"  # 4 workers
    assert suggest_workers(6.2, PLAN, 16).advice == "Set data.num_workers to 7."
    assert suggest_workers(6.2, PLAN, 6).advice.startswith("Set data.num_workers to 6, and make the videos smaller")
    on_cpu = replace(PLAN, on_gpu=False, num_workers=0, num_threads=2)
    assert suggest_workers(0.4, on_cpu, 2).advice == "Set data.num_workers to 1 and num_threads to 1."
    assert suggest_workers(0.4, on_cpu, 4).advice == "Set data.num_workers to 1."


def test_identical_files(tmp_path: Path) -> None:
    start = bytes(2**16)
    contents = {"a": start + b"1", "b": start + b"2", "c": start + b"1", "d": b"1", "e": b"1", "f": b"2"}
    paths = {name: str(tmp_path / name) for name in contents}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = identical([paths["a"], paths["d"]], [paths[name] for name in "bcef"])
    assert found == [(paths["a"], paths["c"]), (paths["d"], paths["e"])]
    assert identical([paths["a"]], [paths["c"], paths["a"]]) == [(paths["a"], paths["c"])]  # videos, not pairs, count
