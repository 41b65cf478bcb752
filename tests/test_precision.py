"""Testing in other arithmetic or memory layouts than training's, through the real command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from a2video.cli import main

Writer = Callable[[Path], Path]


def probabilities(trained: Path, config: Path, *options: str) -> tuple[str, list[float]]:
    """The precision in results.json, and each video's probability of the class `left`."""
    main(["test", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt"), *options])
    out = config.parent / "out"
    rows = list(csv.DictReader((out / "test_predictions.csv").read_text(encoding="utf-8").splitlines()))
    chosen = [(row["predicted"], float(row["probability"])) for row in rows]
    probs = [probability if name == "left" else 1 - probability for name, probability in chosen]
    return json.loads((out / "results.json").read_text())["precision"], probs


def test_bf16_and_channels_last_test_what_float32_does(trained: Path, write_config: Writer, tmp_path: Path) -> None:
    precision, expected = probabilities(trained, write_config(tmp_path / "float32"))
    assert precision == "32-true"
    assert len(expected) == 5
    precision, found = probabilities(trained, write_config(tmp_path / "layout"), "--model.channels_last=true")
    assert precision == "32-true"
    assert found == pytest.approx(expected, abs=1e-5)
    options = ["--trainer.precision=bf16-mixed", "--model.channels_last=true"]
    precision, found = probabilities(trained, write_config(tmp_path / "bf16"), *options)
    assert precision == "bf16-mixed"
    assert found == pytest.approx(expected, abs=0.02)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) > 1e-5  # it was another arithmetic
