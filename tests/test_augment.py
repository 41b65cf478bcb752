from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from a2video.augment import Augment, cut_mix, draw_boxes, mix_up
from a2video.cli import main
from a2video.errors import InputError

Writer = Callable[[Path], Path]
SEED = (0, 1, 2, 3)
EACH = [
    {"brightness": 0.4},
    {"contrast": 0.4},
    {"saturation": 0.4},
    {"hue": 0.1},
    {"num_ops": 2},
    {"num_ops": 4, "magnitude": 15},
    {"erasing": 1.0},
    {"mixup": 0.8},
    {"cutmix": 1.0},
    {"brightness": 0.4, "hue": 0.1, "num_ops": 1, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0},
]


def static_clips(num_videos: int = 4, num_views: int = 2, num_frames: int = 4) -> torch.Tensor:
    """Clips whose frames are all alike; all clips alike too: uint8 (B, V, 3, T, 20, 24)."""
    frame = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return frame[:, None].expand(num_videos, num_views, 3, num_frames, 20, 24).clone()


@pytest.mark.parametrize("settings", EACH, ids=str)
def test_frames_of_a_clip_alike_clips_not_and_in_range(settings: dict[str, Any]) -> None:
    clips = static_clips()
    labels = torch.tensor([0, 1, 2, 0])
    if settings.keys() <= {"mixup", "cutmix"}:
        clips = clips + torch.arange(4, dtype=torch.uint8).view(-1, 1, 1, 1, 1, 1) * 30  # else there is nothing to mix
    augmented, _ = Augment(**settings)(clips, labels, 3, SEED)
    assert augmented.shape == clips.shape
    assert augmented.dtype == torch.float32
    assert 0 <= augmented.min() <= augmented.max() <= 255
    assert torch.equal(augmented, augmented[:, :, :, :1].expand_as(augmented))
    assert (augmented - clips).abs().max() > 1
    mixes = settings.keys() <= {"mixup", "cutmix"}  # these treat the views of a video alike
    views = augmented[:, 0] if mixes else augmented.flatten(0, 1)
    assert all((views[i] - views[j]).abs().max() > 0 for i in range(len(views)) for j in range(i))


def test_draws_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    clips, labels = static_clips(), torch.tensor([0, 1, 2, 0])
    augment = Augment(**EACH[-1])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, targets = augment(clips, labels, 3, SEED)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again, same_targets = augment(clips, labels, 3, SEED)
    assert torch.equal(first, again)
    assert torch.equal(targets, same_targets)
    for place in range(4):  # seed, epoch, batch, rank
        seed = [number + (place == index) for index, number in enumerate(SEED)]
        assert not torch.equal(Augment(**EACH[-1])(clips, labels, 3, seed)[0], first)


def test_nothing_asked_for_changes_nothing() -> None:
    clips, labels = static_clips(), torch.tensor([0, 1, 2, 0])
    same, same_labels = Augment()(clips, labels, 3, SEED)
    assert (same - clips).abs().max() < 1e-4
    assert same_labels is labels


def test_mixup_by_hand() -> None:
    clips = torch.tensor([10.0, 110.0, 200.0]).view(3, 1, 1, 1, 1, 1).expand(3, 2, 3, 4, 5, 5)
    targets = torch.eye(3)
    mixed, shares = mix_up(clips, targets, torch.tensor([0.9, 0.2, 1.0]))
    assert torch.allclose(mixed[:, 1, 2, 3, 4, 4], torch.tensor([0.9 * 10 + 0.1 * 200, 0.2 * 110 + 0.8 * 10, 200.0]))
    assert torch.allclose(shares, torch.tensor([[0.9, 0, 0.1], [0.8, 0.2, 0], [0, 0, 1.0]]))


def test_cutmix_by_hand() -> None:
    clips = torch.tensor([10.0, 110.0, 200.0]).view(3, 1, 1, 1, 1, 1).expand(3, 2, 3, 4, 5, 10)
    boxes = torch.tensor([[0, 2, 5, 10], [1, 1, 0, 10], [0, 5, 0, 10]])  # 10, 0 and 50 of 50 pixels
    mixed, shares = cut_mix(clips, torch.eye(3), boxes)
    assert torch.allclose(shares, torch.tensor([[0.8, 0, 0.2], [0, 1, 0], [0, 1, 0]]))
    expected = torch.full((5, 10), 10.0)
    expected[:2, 5:] = 200
    assert torch.equal(mixed[0], expected.expand(2, 3, 4, 5, 10))
    assert torch.equal(mixed[1], clips[1])
    assert torch.equal(mixed[2], clips[1])


def test_label_share_is_the_area_that_cutmix_left() -> None:
    clips = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1, 1).expand(2, 1, 3, 2, 20, 24)
    for epoch in range(20):
        mixed, shares = Augment(cutmix=1.0)(clips, torch.tensor([0, 1]), 2, (0, epoch))
        assert torch.allclose(shares[:, 1], mixed.mean((1, 2, 3, 4, 5)) / 255, atol=1e-5)
        assert torch.allclose(shares.sum(1), torch.ones(2))


def test_boxes_lie_in_the_frame_around_every_place() -> None:
    torch.manual_seed(0)
    boxes = draw_boxes(torch.full((2000,), 0.25), 20, 40)  # 10 x 20 where they are not cut off
    assert boxes.amin(0).tolist() == [0, 5, 0, 10]
    assert boxes.amax(0).tolist() == [15, 20, 30, 40]
    sizes = torch.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], 1)
    assert sizes.amax(0).tolist() == [10, 20]
    assert sizes.amin(0).tolist() == [5, 10]


def test_erasing_takes_one_box_for_all_frames_and_only_with_its_probability() -> None:
    clips = static_clips(20, 1)
    erased, _ = Augment(erasing=0.5)(clips, torch.zeros(20, dtype=torch.int64), 2, SEED)
    changed = (erased - clips).abs().amax((1, 2)) > 1e-3  # (B, T, H, W)
    num_erased = int(changed.flatten(1).any(1).sum())
    assert 4 <= num_erased <= 16
    for frames in changed:
        assert torch.equal(frames, frames[:1].expand_as(frames))
    assert (erased[:, 0, :, 0].permute(0, 2, 3, 1)[changed[:, 0]] == 127.5).all()
    share = changed[:, 0].flatten(1).float().mean(1)
    assert share.max() < 0.36


def test_one_of_mixup_and_cutmix() -> None:
    clips = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1, 1).expand(2, 1, 3, 1, 20, 24)
    augment = Augment(mixup=1.0, cutmix=1.0)
    mixed = [augment(clips, torch.tensor([0, 1]), 2, (seed,))[0] for seed in range(40)]
    assert 10 < sum(bool(((batch > 0.01) & (batch < 254.99)).any()) for batch in mixed) < 30  # the others are cut


def test_kornias_own_augmentations() -> None:
    import kornia.augmentation

    clips = static_clips()
    gray, _ = Augment(transforms=[kornia.augmentation.RandomGrayscale(p=1.0)])(clips, torch.zeros(4), 2, SEED)
    assert (gray.amax(2) - gray.amin(2)).max() < 1e-3
    with pytest.raises(
        InputError, match=r"data\.augment\.transforms takes augmentations of kornia for images, got ReLU"
    ):
        Augment(transforms=[torch.nn.ReLU()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brightness": 1.5}, r"data\.augment\.brightness must be in \[0, 1\], got 1.5"),
        ({"hue": -0.1}, r"data\.augment\.hue must be in \[0, 0.5\], got -0.1"),
        ({"num_ops": 16}, r"data\.augment\.num_ops must be in \[0, 15\], got 16"),
        ({"magnitude": 30}, r"data\.augment\.magnitude must be between 0 and 30, got 30"),
        ({"erasing": 2.0}, r"data\.augment\.erasing must be in \[0, 1\], got 2"),
        ({"mixup": -1.0}, r"data\.augment\.mixup must be in \[0, 1000\], got -1"),
        ({"cutmix": float("nan")}, r"data\.augment\.cutmix must be in \[0, 1000\], got nan"),
    ],
)
def test_wrong_values(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augment(**settings)


def test_without_kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    Augment(mixup=1.0)
    with pytest.raises(InputError, match=r"data\.augment needs kornia, which does not import .*: pip install kornia"):
        Augment(brightness=0.1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def test_fit_with_augmentation_is_reproducible_and_tests_without(
    write_config: Writer, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = EACH[-1] | {"transforms": [{"class_path": "kornia.augmentation.RandomGrayscale", "init_args": {"p": 0.2}}]}
    seeds = []
    call = Augment.__call__
    monkeypatch.setattr(Augment, "__call__", lambda *args: seeds.append(args[-1]) or call(*args))
    for name, num_workers in (("a", 0), ("b", 1)):
        config = write_config(tmp_path / name)
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        content["data"] |= {"augment": {"class_path": "a2video.augment.Augment", "init_args": init}}
        content["data"]["num_workers"] = num_workers
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        main(["fit", "--config", str(config)])
    assert seeds == [(0, epoch, batch, 0) for epoch in (0, 1) for batch in (0, 1)] * 2  # nothing in validation
    first, again, plain = (weights(folder) for folder in (tmp_path / "a/out", tmp_path / "b/out", trained))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], plain[name]) for name in first)
    main(["test", "--config", str(tmp_path / "a/config file.yaml"), f"--ckpt_path={tmp_path / 'a/out/last.ckpt'}"])
    assert len(seeds) == 8


def test_wrong_values_in_yaml_or_on_the_command_line_are_one_short_sentence(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, message in (
        ("brightness=7", "a2video: error: data.augment.brightness must be in [0, 1], got 7.0"),
        ("brightnes=1", "a2video: error: Parser key \"data.augment\": Option 'brightnes' is not accepted"),
    ):
        command = ["fit", "--config", str(write_config(tmp_path)), "--data.augment=a2video.augment.Augment"]
        with pytest.raises(SystemExit) as exit_info:
            main([*command, f"--data.augment.{option}"])
        assert exit_info.value.code == 2
        assert capsys.readouterr().err.strip().splitlines()[-1] == message
