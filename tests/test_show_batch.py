"""The picture of a batch shows the loader's crops, in the right colours, with the right labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_video
from PIL import Image
from test_cli import fails

from a2video.cli import main
from a2video.lightning_cli import experiment
from a2video.sheet import GAP, LINE, MARGIN
from a2video.show_batch import Seen, _label, describe_values, first_inputs, to_pixels

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, write_config: Callable[[Path], Path]) -> list[str]:
    """Four videos with a red left half: the right one is blue in the class `blue`, green in `green`."""
    folder = tmp_path_factory.mktemp("halves")
    rows = ["path,label"]
    for index in range(4):
        name, colour = (("blue", BLUE), ("green", GREEN))[index % 2]
        frames = np.zeros((12, 32, 64, 3), dtype=np.uint8)
        frames[:, :, :32], frames[:, :, 32:] = RED, colour
        write_video(folder / f"{name} {index}.mp4", frames)
        rows.append(f"{name} {index}.mp4,{name}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    lists = [f"--data.{name}_list={folder / 'list.csv'}" for name in ("train", "val", "test")]
    return ["--config", str(write_config(folder)), *lists, "--data.batch_size=2", "--trainer.accelerator=gpu"]


def boxes(picture: Image.Image, num_rows: int) -> np.ndarray:
    """The frames on a sheet, in their own size: (num_rows, 4, 24, 24, 3)."""
    pixels, shown = np.asarray(picture), 120  # 24 enlarged five times
    top = MARGIN + 2 * LINE
    found = [
        pixels[y + LINE :][:shown, MARGIN + time * (shown + GAP) :][:, :shown][2::5, 2::5]
        for y in (top + row * (LINE + MARGIN + shown) + MARGIN for row in range(num_rows))
        for time in range(4)
    ]
    return np.stack(found).reshape(num_rows, 4, 24, 24, 3)


def is_near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) < 12).all(-1)


def test_picture_has_the_colours_the_crops_and_the_labels(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "last.ckpt").write_text("of a run that is there")
    main(["show-batch", *options, f"--trainer.default_root_dir={out}", "--num_clips", "3"])
    assert sorted(path.name for path in out.iterdir()) == ["batch.png", "last.ckpt"]
    shown = boxes(Image.open(out / "batch.png"), 3)

    cpu = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={out}"]
    recognizer, data, trainer = experiment([*options, *cpu])
    data.trainer = trainer
    data.setup("fit")
    batches = list(data.train_dataloader())
    clips = torch.cat([batch["clips"] for batch in batches])[:3, 0].permute(0, 2, 3, 4, 1).numpy()
    assert np.array_equal(shown, clips)

    recognizer.network.compile()
    seen = first_inputs(recognizer, data, trainer, 3)
    for clip, item in zip(shown, seen, strict=True):
        assert item.video.name.startswith(item.label)
        other = {"blue": BLUE, "green": GREEN}[item.label]
        for frame in clip:
            num_red = int(is_near(frame[12], RED).sum())  # red to the left, the class's colour to the right
            assert is_near(frame[:, : max(0, num_red - 1)], RED).all()
            assert is_near(frame[:, num_red + 1 :], other).all()


def test_mirrored_clips_are_shown_mirrored_and_another_epoch_has_others(options: list[str], tmp_path: Path) -> None:
    sheets = []
    for number, more in enumerate(([], ["--data.horizontal_flip=1"], ["--epoch=1"])):
        out = tmp_path / f"{number}.png"
        main(["show-batch", *options, "--num_clips=2", "--out", str(out), *more])
        sheets.append(boxes(Image.open(out), 2))
    assert np.array_equal(sheets[1], sheets[0][:, :, :, ::-1])
    assert not np.array_equal(sheets[2], sheets[0])


def test_another_epoch_has_the_augmentation_that_training_gives_it(options: list[str], tmp_path: Path) -> None:
    augment = ["--data.augment=a2video.augment.Augment", "--data.augment.mixup=1"]
    cpu = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}", "--trainer.limit_val_batches=0"]
    off = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    recognizer, data, trainer = experiment([*options, *augment, *cpu, *off, "--trainer.max_epochs=2"])
    inputs: list[torch.Tensor] = []
    recognizer.network.register_forward_pre_hook(lambda network, args: inputs.append(args[0].clone()))
    trainer.fit(recognizer, datamodule=data)
    seen = first_inputs(*experiment([*options, *augment, *cpu]), num_clips=4, epoch=1)
    assert torch.equal(torch.stack([clip.values for clip in seen]), torch.cat(inputs[2:]))
    assert any("%" in clip.label for clip in seen)


def test_animation_has_the_frames_of_a_clip_even_if_nothing_moves(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new folder/batch.gif"
    main(
        ["show-batch", *options, "--out", str(out), "--data.augment=a2video.augment.Augment", "--data.augment.mixup=1"]
    )
    with Image.open(out) as animation:
        assert animation.n_frames == 4
        assert np.asarray(animation.convert("RGB")).std() > 20


def test_what_is_drawn_comes_from_what_the_network_gets() -> None:
    values = torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1, 1)
    assert to_pixels(values, (0.4, 0.5, 0.6), (0.2, 0.25, 0.1)).tolist() == [[[[128, 64, 204]]]]
    seen = [Seen(values * scale, "", Path()) for scale in (1, -1)]
    assert describe_values(seen) == ["input values, R G B: mean 0.00 0.00 0.00, deviation 0.50 1.00 2.00"]
    not_divided = [Seen(values * 100, "", Path())]
    assert describe_values(not_divided)[1].startswith("These are unusual: check data.preprocessing.mean and std")


def test_labels_of_mixed_clips() -> None:
    names = ("left", "right", "up")
    assert _label(torch.tensor(1), names) == "right"
    assert _label(torch.tensor([0.3, 0.0, 0.7]), names) == "up 70% + left 30%"
    assert _label(torch.tensor([0.0, 1.0, 0.0]), names) == "right"


def test_wrong_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out is a .png or a .gif file, got a.jpg" in fails(capsys, "show-batch", *options, "--out=a.jpg")
    message = fails(capsys, "show-batch", *options, f"--out={__file__}/batch.png")
    assert f"the folder of --out {__file__} cannot be written to (" in message
    assert "from 1 and --epoch from 0 up, got 0 and 0" in fails(capsys, "show-batch", *options, "--num_clips=0")
    assert "--nonsense" in fails(capsys, "show-batch", *options, "--nonsense=1")
