"""What a run finds in its output folder, what it does not lose there, and what it says that it has left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_cli import fails

from a2video.cli import main

Writer = Callable[[Path], Path]


def test_a_run_without_its_last_checkpoint_is_protected_and_gone_on_with(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fit, out = ["fit", "--config", str(write_config(tmp_path))], tmp_path / "out"
    main([*fit, "--trainer.max_epochs=1"])
    (out / "last.ckpt").rename(out / "last-1.ckpt")
    for name in ("last-1.ckpt", "best.ckpt"):
        assert f"{out / name} exists: choose another --trainer.default_root_dir" in fails(capsys, *fit)
        (out / "last-1.ckpt").unlink(missing_ok=True)
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        main([*fit, "--ckpt_path=last"])
    assert f"last.ckpt is missing: going on from the checkpoint before it, {out / 'best.ckpt'}" in caplog.text
    assert "Trained 4 steps in 2 epochs." in capsys.readouterr().out
    assert "\n0," not in (out / "logs/version_1/metrics.csv").read_text()  # that epoch is not repeated


def test_a_folder_that_cannot_be_written_to_is_refused_early(
    trained: Path, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(write_config(tmp_path))]
    (tmp_path / "file").write_text("no folder")
    folders = [tmp_path / "file/out", tmp_path / "file", *(path for path in [Path("/proc")] if path.is_dir())]
    for folder in folders:
        message = fails(capsys, "fit", *options, f"--trainer.default_root_dir={folder}")
        assert f"trainer.default_root_dir {folder} cannot be written to (" in message
    test = ["test", *options, f"--ckpt_path={trained / 'best.ckpt'}"]
    assert "cannot be written to (" in fails(capsys, *test, f"--trainer.default_root_dir={folders[0]}")


def test_fit_prints_only_files_that_are_there(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fit, out = ["fit", "--config", str(write_config(tmp_path)), "--trainer.max_epochs=1"], tmp_path / "out"
    main([*fit, "--trainer.fast_dev_run=true"])
    printed = capsys.readouterr().out
    assert "ResNet3d: 146,866 parameters\n" in printed
    assert "Trained 1 step in 1 epoch." in printed
    assert "Checkpoint" not in printed
    assert "Test it" not in printed
    mine = ["dirpath", str(out), "filename", "mine", "monitor", "val/loss"]
    values = [f"--trainer.callbacks.{name}={value}" for name, value in zip(mine[::2], mine[1::2], strict=True)]
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        main([*fit, "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", *values])
    assert "weights_only" not in caplog.text
    lines = capsys.readouterr().out.splitlines()
    loss = torch.load(out / "last.ckpt", weights_only=True)["a2video_position"]["metrics"]["val/loss"]
    assert [line for line in lines if line.startswith("Checkpoint: ")] == [
        f"Checkpoint: {out / 'last.ckpt'}",
        f"Checkpoint: {out / 'mine.ckpt'} (val/loss {float(loss):.4g})",
    ]
    assert lines[-2].endswith(f"/config.yaml' --ckpt_path '{out / 'mine.ckpt'}'")
    monkeypatch.chdir(tmp_path)
    main([*fit, "--trainer.default_root_dir=runs/x", "--model.freeze.parts=[conv1]"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ResNet3d: 146,866 parameters, ") and line.endswith(" of them frozen") for line in lines)
    assert "Checkpoint: runs/x/last.ckpt" in lines
    assert sum(line.startswith("Checkpoint: runs/x/best.ckpt (val/top1 ") for line in lines) == 1
    assert lines[-2].startswith(
        "Test it: a2video test --config 'runs/x/logs/version_0/config.yaml' --ckpt_path 'runs/x/b"
    )
