"""All options of optimization together, through the real command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from a2video.cli import main
from a2video.ema import TRAINING_KEY
from a2video.inference.weights import load_trained

Writer = Callable[[Path], Path]

OPTIONS = """
model:
  optimizer:
    class_path: a2video.optimizers.AdamW
    init_args:
      lr: 0.01
      decay_norms_and_biases: false
      lr_factors: {"*": 0.2, fc: 1.0}
  schedule:
    class_path: a2video.schedules.Plateau
    init_args: {patience: 1, monitor: val/loss, maximize: false, warmup_steps: 2}
  base_batch_size: 8
  label_smoothing: 0.1
  freeze:
    parts: [conv1, conv2]
trainer:
  accumulate_grad_batches: 2
  gradient_clip_val: 1.0
  callbacks:
  - class_path: a2video.ema.Ema
    init_args: {decay: 0.9}
  - class_path: a2video.precise_bn.PreciseBatchNorm
    init_args: {num_batches: 2}
data:
  batch_size: 2
"""


@pytest.fixture
def config(write_config: Writer, tmp_path: Path) -> list[str]:
    """The small data's configuration with all of these options."""
    overlay = tmp_path / "options.yaml"
    base = yaml.safe_load(write_config(tmp_path).read_text())
    del base["model"]["optimizer"], base["model"]["schedule"]
    (tmp_path / "config file.yaml").write_text(yaml.safe_dump(base))
    overlay.write_text(OPTIONS)
    return ["--config", str(tmp_path / "config file.yaml"), "--config", str(overlay)]


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(contains(w, p) for w, p in zip(whole, part, strict=True))
    return whole == part


def test_every_option_is_in_the_saved_config_and_the_averages_are_what_is_tested(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *config])
    out = tmp_path / "out"
    log = out / "logs/version_0/config.yaml"
    assert contains(yaml.safe_load(log.read_text()), yaml.safe_load(OPTIONS))
    checkpoint = torch.load(out / "last.ckpt", weights_only=True)
    averages, weights = checkpoint["state_dict"], checkpoint[TRAINING_KEY]
    for name, average in averages.items():
        is_frozen = name.startswith(("network.conv1.", "network.conv2."))
        counts = name.endswith("num_batches_tracked")
        assert torch.equal(average, weights[name]) == (is_frozen or counts), name
    assert len(checkpoint["lr_schedulers"][0]["monitored"]) == 2
    loaded = load_trained(out / "last.ckpt").network.state_dict()
    assert all(torch.equal(value, averages[f"network.{name}"]) for name, value in loaded.items())
    main(["test", "--config", str(log), "--ckpt_path", str(out / "last.ckpt")])
    main(["fit", *config, "--ckpt_path", str(out / "last.ckpt"), "--trainer.max_epochs=3"])
    assert "Trained 6 steps in 3 epochs" in capsys.readouterr().out


def test_two_processes(config: list[str], tmp_path: Path) -> None:
    """Each rank has 4 of 8 videos: 2 batches and 1 update an epoch, statistics of all 8."""
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1"]
    options += ["--model.optimizer.lr=0"]
    command = [sys.executable, "-m", "a2video", "fit", *config, *options]
    printed = subprocess.run(command, check=True, capture_output=True, timeout=200, text=True).stdout
    assert printed.count("Learning rate 0 for 8 clips an update -> 0 for 8 (2 clips x 2 devices x 2 batches)") == 1
    ranks = torch.load(tmp_path / "out/last.ckpt", weights_only=True)["state_dict"]
    main(
        ["fit", *config, "--trainer.max_epochs=1", "--model.optimizer.lr=0", "--overwrite=true", "--data.batch_size=4"]
    )
    alone = torch.load(tmp_path / "out/last.ckpt", weights_only=True)["state_dict"]
    for name in ("mean", "var"):  # of the first batch norm that is not frozen: later ones depend on the batches
        name = f"network.conv3.1.bn1.running_{name}"
        assert torch.allclose(ranks[name], alone[name], rtol=1e-5, atol=1e-7)


def test_wrong_names_are_one_sentence(config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for option, message in (
        ("--model.optimizer.lr_factors={conv7: 1.0}", "model.optimizer.lr_factors: 'conv7' matches nothing"),
        ("--model.freeze.parts=[stem]", "model.freeze.parts: 'stem' matches nothing"),
        ("--model.schedule.monitor=val/acc", "model.schedule.monitor: no metric 'val/acc'"),
        ("--model.label_smoothing=1", "model.label_smoothing must be in [0, 1)"),
    ):
        with pytest.raises(SystemExit):
            main(["fit", *config, option])
        assert message in capsys.readouterr().err.splitlines()[-1]
