"""Samplers from YAML, and settings that older checkpoints do not have, through the real command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from a2video.cli import main
from a2video.data.samplers import SegmentFrames
from a2video.data.transforms import Preprocessing
from a2video.datamodule import VideoDataModule
from a2video.inference.classifier import VideoClassifier

Writer = Callable[[Path], Path]


def with_data(config: Path, **settings: Any) -> list[str]:
    """The command that trains one epoch with more settings in the YAML file's `data`."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["data"].update(settings)
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["fit", "--config", str(config), "--trainer.max_epochs=1"]


def refusal(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_sampler_in_yaml(write_config: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    clips = SegmentFrames._clips
    monkeypatch.setattr(SegmentFrames, "_clips", lambda *args: seen.append(clips(*args)) or seen[-1])
    sampler = {"class_path": "a2video.data.samplers.SegmentFrames", "init_args": {"num_frames": 4, "random": True}}
    main(with_data(write_config(tmp_path), train_sampler=sampler))
    assert len(seen) == 8
    assert all((indices // 6 == [[0, 1, 2, 3]]).all() for indices in seen)  # of 24 frames
    saved = (tmp_path / "out/logs/version_0/config.yaml").read_text()
    assert "a2video.data.samplers.SegmentFrames" in saved


def test_protocol_and_several_strides_in_yaml(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    preset = {"class_path": "a2video.data.protocols.mfnet_kinetics_train"}
    message = refusal(capsys, with_data(config, train_sampler=preset))
    assert "data.train_sampler has num_frames = 16, but data.preprocessing.num_frames is 4: make them equal" in message
    strides = {
        "class_path": "a2video.data.samplers.RandomClips",
        "init_args": {"num_frames": 4, "frame_stride": [1, 2]},
    }
    command = with_data(config, train_sampler=strides)
    main(command)
    assert (tmp_path / "out/last.ckpt").is_file()
    main([*with_data(config, train_sampler=preset), "--data.preprocessing.num_frames=16", "--overwrite=true"])


def test_sampler_without_a_number_of_clips_is_refused(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = {
        "class_path": "a2video.data.samplers.ConsecutiveClips",
        "init_args": {"num_frames": 4, "frame_stride": 1},
    }
    message = refusal(capsys, with_data(write_config(tmp_path), train_sampler=windows))
    assert "train_sampler ConsecutiveClips takes a different number of clips from each video" in message


def test_target_rate_and_policy_reach_training_and_the_checkpoint(
    write_config: Writer, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=24, target_fps=15.0, short="error")
    sampler = VideoDataModule(p).train_sampler
    assert (sampler.num_frames, sampler.target_fps, sampler.short) == (4, 15.0, "error")
    assert (
        "of 4 frames, stride 2 at 15 frames a second, short videos: error, short side 32"
        in VideoDataModule(p).protocol.name
    )
    config = write_config(tmp_path)
    message = refusal(
        capsys,
        ["test", "--config", str(config), f"--ckpt_path={trained / 'best.ckpt'}", "--data.preprocessing.target_fps=15"],
    )
    assert "trained with data.preprocessing.target_fps = None, but here it is 15.0" in message
    too_short = ["--data.preprocessing.frame_stride=8", "--data.preprocessing.short=error"]
    message = refusal(capsys, ["fit", "--config", str(config), *too_short])
    assert "mp4: has 24 frames, but a clip of 4 needs 25" in message


def test_checkpoint_from_before_these_settings(
    write_config: Writer, trained: Path, small_data: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    for name in ("target_fps", "short"):
        del checkpoint["a2video"]["preprocessing"][name]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert VideoClassifier.load(tmp_path / "old.ckpt", "cpu").preprocessing.short == "loop"
    main(["test", "--config", str(write_config(tmp_path)), f"--ckpt_path={tmp_path / 'old.ckpt'}"])
    assert (tmp_path / "out/results.json").is_file()
