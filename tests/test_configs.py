"""Every YAML file in configs/ through the real command line, and what it promises."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import REPOSITORY

from a2video import models
from a2video.cli import main

CONFIGS = REPOSITORY / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
NUM_CLASSES = {"kinetics400": 400, "ucf101": 101, "imagenet": 1000, "surveillance_fights": 2, "motion": 9}
SMALL = [  # what makes any of them small
    "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0", "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true", "--num_threads=1",
    "--data.batch_size=2", "--data.num_workers=0", "--data.preprocessing.short_side=32",
    "--data.preprocessing.crop_size=32", "--data.preprocessing.num_clips=1", "--data.preprocessing.num_crops=1",
    "--model.network.init_args.num_classes=2",
]  # fmt: skip


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))


def test_all_are_here() -> None:
    assert len(NAMES) == 17
    assert len({content(name)["trainer"]["default_root_dir"] for name in NAMES}) == 17


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not outlive its test: checkpoints of ResNet-50 are large."""
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_tests(
    name: str, small_data: Path, pictures: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = content(name)
    network, data = config["model"]["network"]["class_path"].rpartition(".")[2], config["data"]
    lists = {split: small_data / f"{split}.csv" for split in ("train", "val", "test")}
    if name.startswith("imagenet/"):
        lists = {split: pictures / ("train" if split == "train" else "val") for split in lists}
    options = [f"--config={CONFIGS / name}", *SMALL, f"--trainer.default_root_dir={out}"]
    options += [f"--data.{split}_list={path}" for split, path in lists.items() if data.get(f"{split}_list")]
    options += ["--data.train_short_side=[32,40]"] if "train_short_side" in data else []
    if config["model"].get("pretrained"):
        pretrained = out.parent / "pretrained.pth"
        torch.save(getattr(models, network)(num_classes=3).state_dict(), pretrained)
        options.append(f"--model.pretrained={pretrained}")
    main(["fit", *options])
    saved = out / "logs/version_0/config.yaml"
    printed = capsys.readouterr().out
    assert re.search(r"Trained \d+ steps? in 1 epoch\.", printed)  # 1: typing may have cached "1" to mean all batches
    assert f"for {config['model']['base_batch_size']} clips an update -> " in printed
    assert ("Pretrained " in printed) == ("pretrained" in config["model"])
    main(["test", "--config", str(saved), f"--ckpt_path={out / 'last.ckpt'}"])
    results = json.loads((out / "results.json").read_text())
    assert results["num_scored"] == results["num_videos"] == (6 if name.startswith("imagenet/") else 5)
    described = torch.load(out / "last.ckpt", weights_only=True, mmap=True)["a2video"]["network"]
    assert described["builder"] == network


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_says_how_to_run_it(name: str) -> None:
    lines = (CONFIGS / name).read_text(encoding="utf-8").splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    folder = content(name)["trainer"]["default_root_dir"]
    assert f"#   a2video fit --config configs/{name}" in header
    assert f"#   a2video test --config configs/{name} " in header
    assert f"--ckpt_path {folder}/" in header
    assert "Expected" in header
    untrained = name.split("/")[0] in ("kinetics400", "ucf101", "imagenet") or name == "motion/ablation_paper.yaml"
    assert untrained == ("Not trained yet." in header)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_classes(name: str) -> None:
    num_classes = content(name)["model"]["network"]["init_args"]["num_classes"]
    assert num_classes == NUM_CLASSES.get(name.split("/")[0], num_classes)


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A copy without what the dotted keys name, which must be there."""
    copied = json.loads(json.dumps(config))
    for key in keys:
        *parents, last = key.split(".")
        part = copied
        for parent in parents:
            part = part[parent]
        del part[last]
    return copied


def test_splits_of_ucf101_differ_in_lists_and_folder_alone() -> None:
    own = ("trainer.default_root_dir", "data.train_list", "data.test_list")
    first, *others = (without(content(f"ucf101/split{number}.yaml"), *own) for number in (1, 2, 3))
    assert all(other == first for other in others)
    for number in (1, 2, 3):
        data = content(f"ucf101/split{number}.yaml")["data"]
        assert data["train_list"] == f"data/ucf101/train{number}.csv"
        assert data["test_list"] == f"data/ucf101/test{number}.csv"


def test_the_ablation_differs_in_network_and_folder_alone() -> None:
    names = ("resnet26", "a2net_resnet26", "resnet29", "a2net_resnet29")
    first, *others = (content(f"kinetics400/{name}.yaml") for name in names)
    own = ("trainer.default_root_dir", "model.network.class_path")
    assert all(without(other, *own) == without(first, *own) for other in others)
    for name in names:
        assert content(f"kinetics400/{name}.yaml")["model"]["network"]["class_path"] == f"a2video.models.{name}"


def test_fine_tuning_differs_from_scratch_in_where_it_starts_and_how_fast_alone() -> None:
    scratch, tuned = (content(f"surveillance_fights/{name}.yaml") for name in ("a2net_tiny", "finetune"))
    own = ("trainer.default_root_dir", "model.optimizer.init_args")
    assert without(tuned, *own, "model.pretrained") == without(scratch, *own)
    assert tuned["model"]["optimizer"]["init_args"]["lr"] == scratch["model"]["optimizer"]["init_args"]["lr"]


def test_lengths_of_the_papers_trainings() -> None:
    """Updates of 512 clips in epochs of 240,000 videos, and where the milestones of UCF-101's 9,537 videos lie."""
    assert round(68 * 240_000 / 512, -3) == 32_000
    assert content("kinetics400/a2net_resnet50.yaml")["trainer"]["max_epochs"] == 68
    assert round(79 * 240_000 / 512, -3) == 37_000
    assert content("kinetics400/resnet26.yaml")["trainer"]["max_epochs"] == 79
    ucf = content("ucf101/split1.yaml")
    milestones = ucf["model"]["schedule"]["init_args"]["milestones"]
    assert milestones[-1] == 600_000 < ucf["trainer"]["max_epochs"] * 9537 < 700_000
    imagenet = content("imagenet/a2net_resnet50_2d.yaml")["model"]
    assert imagenet["optimizer"]["init_args"]["lr"] == pytest.approx(0.1**0.5, abs=1e-3)
