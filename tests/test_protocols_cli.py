"""Protocols through the real command line, against a plain loop over the videos."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from a2video.cli import main
from a2video.data.protocols import Dense, MfnetUcf101, Protocol
from a2video.data.transforms import Preprocessing
from a2video.data.views import View, load_views
from a2video.datamodule import VideoDataModule
from a2video.inference.classifier import VideoClassifier
from a2video.inference.scoring import score_views

Writer = Callable[[Path], Path]


def by_hand(checkpoint: Path, make: Callable[[Preprocessing], Protocol], rows: list[dict[str, str]]) -> dict:
    """Accuracies, and the probabilities of the first class, of videos that a plain loop scores one by one."""
    classifier = VideoClassifier.load(checkpoint, "cpu")
    protocol = make(classifier.preprocessing)
    probs, right = [], []
    for index, row in enumerate(rows):
        rng = np.random.default_rng([0, 0, index])  # seed, epoch, video
        clips, _ = load_views(row["path"], protocol.sampler, protocol.transform, rng)
        with torch.inference_mode():
            logits = score_views(classifier.network, classifier.preprocessing, clips)
        probs.append(
            (logits.mean(0).softmax(0) if protocol.average == "logits" else logits.softmax(1).mean(0)).tolist()
        )
        right += (logits.argmax(1) == classifier.class_names.index(row["label"])).tolist()
    return {"probs": probs, "clip_top1": sum(right) / len(right), "class_names": classifier.class_names}


@pytest.mark.parametrize(
    ("options", "make", "name"),
    [
        (
            ["--data.protocol=MfnetUcf101", "--data.protocol.average=logits"],
            partial(MfnetUcf101, average="logits"),
            "MFNet's 40 random clips x 1 random crop of 16 frames, stride 2, squashed to 32 x 32, crop 24, mean of "
            "logits (the network was trained on 4 frames, stride 2)",
        ),
        (
            ["--data.protocol=a2video.data.protocols.Dense", "--data.protocol.window_stride=5"],
            partial(Dense, window_stride=5),
            "windows every 5 frames x 1 crop of 4 frames, stride 2, short side 32, crop 24, mean of probabilities",
        ),
    ],
    ids=["mfnet", "dense"],
)
def test_test_and_predict_take_the_protocol(
    trained: Path,
    write_config: Writer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    make: Callable[[Preprocessing], Protocol],
    name: str,
) -> None:
    config, checkpoint = write_config(tmp_path), trained / "best.ckpt"
    main(["test", "--config", str(config), "--ckpt_path", str(checkpoint), *options])
    assert f"{tmp_path / 'out'}: {name}" in capsys.readouterr().out.splitlines()
    results = json.loads((tmp_path / "out/results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out/test_predictions.csv").read_text(encoding="utf-8").splitlines()))
    expected = by_hand(checkpoint, make, rows)
    assert results["protocol"] == name
    assert results["clip_top1"] == pytest.approx(expected["clip_top1"], abs=1e-6)
    for row, probs in zip(rows, expected["probs"], strict=True):
        assert row["predicted"] == expected["class_names"][int(np.argmax(probs))]
        assert float(row["probability"]) == pytest.approx(max(probs), abs=2e-6)
    main(["predict", "--config", str(config), "--ckpt_path", str(checkpoint), *options])
    assert capsys.readouterr().out.splitlines()[-1] == name
    predictions = (tmp_path / "out/predictions.csv").read_text(encoding="utf-8")
    assert predictions == (tmp_path / "out/test_predictions.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["=Uniform", ".num_clip=4"], "Option 'num_clip' is not accepted"),
        (["=Uniform", ".num_clips=0"], "num_clips >= 1, got 4 and 0"),
        (["=Uniform", ".num_crops=5"], "num_crops must be 1 or 3, got 5"),
        (["=Uniform", ".average=median"], "average: expected probs, logits, found 'median'"),
        (["=Dense", ".window_stride=0"], "window_stride must be at least 1, got 0"),
        (["=a2video.data.protocols.Unform"], "has no attribute 'Unform'"),
    ],
)
def test_wrong_protocols(
    trained: Path,
    write_config: Writer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    command = ["test", "--config", str(write_config(tmp_path)), f"--ckpt_path={trained / 'best.ckpt'}"]
    with pytest.raises(SystemExit) as exit_info:
        main([*command, *(f"--data.protocol{option}" for option in options)])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_validation_keeps_its_one_view_and_batches_fit_the_views(small_data: Path) -> None:
    p = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=24, num_clips=2, num_crops=3)
    lists = {"val_list": str(small_data / "val.csv"), "test_list": str(small_data / "test.csv")}
    sizes = {}
    for protocol in (None, partial(Dense, window_stride=9)):
        data = VideoDataModule(p, **lists, batch_size=16, num_workers=0, protocol=protocol)
        data.setup("validate")
        data.setup("test")
        (val,) = list(data.val_dataloader())
        assert val["clips"].shape == (4, 1, 3, 4, 24, 24)
        assert val["views"] == [[View(0, 0, 8, 14)]] * 4
        sizes[protocol] = [tuple(batch["clips"].shape[:2]) for batch in data.test_dataloader()]
    assert list(sizes.values()) == [[(2, 7), (2, 7), (1, 7)], [(1, 4)] * 5]
