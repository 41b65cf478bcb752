"""`a2video show-batch`: a picture or an animation of what the network really gets in training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2video.atomic import make_folder, write_whole
from a2video.data.dataset import EpochSampler
from a2video.datamodule import VideoDataModule
from a2video.errors import InputError
from a2video.lightning_cli import experiment
from a2video.printable import shown
from a2video.recognizer import Recognizer
from a2video.sheet import Row, draw_sheet, write_animation

ON_CPU = [f"--trainer.{option}" for option in ("accelerator=cpu", "devices=1", "num_nodes=1", "strategy=auto")]
NEUTRAL = [*ON_CPU, "--trainer.precision=32-true", "--trainer.logger=false", "--ckpt_path=null"]
MAX_VALUE, MIN_DEVIATION = 5.0, 0.05  # of a network's input, beyond which its normalisation is hardly meant


@dataclass(frozen=True)
class Seen:
    """A clip as the network got it.

    Attributes:
        values: float (3, T, H, W), normalised.
        label: the class, or the shares of each that is mixed in.
        video: the file.
    """

    values: Tensor
    label: str
    video: Path


class _Arrived(Exception):
    """What came to the network's door; nobody needs to compute with it."""

    def __init__(self, clips: Tensor) -> None:
        super().__init__()
        self.clips = clips


def _refuse_entry(network: torch.nn.Module, args: tuple[Tensor]) -> NoReturn:
    raise _Arrived(args[0])


def first_inputs(
    recognizer: Recognizer, data: VideoDataModule, trainer: pl.Trainer, num_clips: int, epoch: int = 0
) -> list[Seen]:
    """The first clips of an epoch on one device: through the loader, the augmentation and the training step itself.

    Args:
        recognizer: as of `experiment`.
        data: likewise.
        trainer: likewise; it does not train.
        num_clips: fewer if an epoch has fewer.
        epoch: from 0.
    """
    recognizer.trainer = data.trainer = trainer
    cast(Any, trainer).datamodule = data
    trainer.training = True
    trainer.fit_loop.epoch_progress.current.completed = epoch
    data.setup("fit")
    loader = data.train_dataloader()
    cast(EpochSampler, loader.batch_sampler.sampler).set_epoch(epoch)
    recognizer.network._compiled_call_impl = None  # of a network that is to be compiled: only its door is needed
    door = recognizer.network.register_forward_pre_hook(_refuse_entry)
    seen: list[Seen] = []
    try:
        for number, batch in enumerate(loader):
            for _, message in batch["errors"]:
                print(f"replaced by another video: {shown(message)}")
            trainer.fit_loop.epoch_loop.batch_progress.current.ready = number  # as at Lightning's transfer of a batch
            batch = data.on_after_batch_transfer(batch, 0)
            try:
                recognizer.training_step(batch, number)
            except _Arrived as arrived:
                num_each = len(arrived.clips) // len(batch["labels"])
                for place, clip in enumerate(arrived.clips):
                    video = data.videos["train"].paths[int(batch["video_indices"][place // num_each])]
                    label = _label(batch["labels"][place // num_each], data.class_names)
                    seen.append(Seen(clip.detach().float(), label, Path(video)))
            if len(seen) >= num_clips:
                break
    finally:
        door.remove()
        data.teardown("fit")
    return seen[:num_clips]


def _label(label: Tensor, names: Sequence[str]) -> str:
    if label.ndim == 0:
        return names[int(label)]
    parts = [int(part) for part in label.argsort(descending=True) if label[part] > 0]
    if len(parts) == 1:
        return names[parts[0]]
    return " + ".join(f"{names[part]} {float(label[part]):.0%}" for part in parts)


def to_pixels(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Normalised (3, T, H, W) -> RGB (T, H, W, 3)."""
    scale, shift = (np.array(numbers)[:, None, None, None] for numbers in (std, mean))
    colours = np.round((values.double().numpy() * scale + shift) * 255).clip(0, 255)
    pixels: NDArray[np.uint8] = colours.astype(np.uint8).transpose(1, 2, 3, 0)
    return pixels


def describe_values(seen: Sequence[Seen]) -> list[str]:
    """The numbers that the network gets in one line, and a second line if they do not look normalised."""
    values = torch.stack([clip.values for clip in seen])  # (N, 3, T, H, W)
    means, deviations = (
        " ".join(f"{float(number):.2f}" for number in numbers)
        for numbers in (values.mean((0, 2, 3, 4)), values.std((0, 2, 3, 4), correction=0))
    )
    lines = [f"input values, R G B: mean {means}, deviation {deviations}"]
    if values.abs().max() > MAX_VALUE or values.std(correction=0) < MIN_DEVIATION:
        lines.append("These are unusual: check data.preprocessing.mean and std, which are for colours in [0, 1].")
    return lines


def run(args: Sequence[str]) -> None:
    """Writes the picture.

    Args:
        args: the command line without `show-batch`.

    Raises:
        InputError: an option is wrong.
    """
    options, rest = _parser().parse_known_args(args)
    if options.num_clips < 1 or options.epoch < 0:
        raise InputError(
            f"expected --num_clips from 1 and --epoch from 0 up, got {options.num_clips} and {options.epoch}"
        )
    recognizer, data, trainer = experiment([*rest, *NEUTRAL])
    out = options.out or Path(trainer.default_root_dir) / "batch.png"
    if out.suffix.lower() not in (".png", ".gif"):
        raise InputError(f"--out is a .png or a .gif file, got {out}")
    make_folder(out.parent, "the folder of --out")
    seen = first_inputs(recognizer, data, trainer, options.num_clips, options.epoch)
    p = data.preprocessing
    rows = [Row(to_pixels(clip.values, p.mean, p.std), clip.label, clip.video.name) for clip in seen]
    lines = describe_values(seen)
    size = f"{p.num_frames} frames, {p.crop_size} x {p.crop_size}"
    header = [f"epoch {options.epoch}: {len(rows)} training clips of {size}", *lines]
    if out.suffix.lower() == ".gif":
        write_whole(out, lambda part: write_animation(rows, header, part))
    else:
        write_whole(out, lambda part: draw_sheet(rows, header).save(part, "PNG"))
    print(*lines, f"Wrote {out}", sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="a2video show-batch",
        description="Draws the first training clips as the network gets them. Takes every option of `a2video fit`.",
        usage="a2video show-batch --config FILE.yaml [--out FILE] [--num_clips N] [--epoch N] [any option of fit]",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, help=".png, or .gif that moves (default: batch.png in the output folder)")
    parser.add_argument("--num_clips", type=int, default=8, help="clips to draw (default: 8)")
    parser.add_argument("--epoch", type=int, default=0, help="whose first clips (default: 0)")
    return parser
