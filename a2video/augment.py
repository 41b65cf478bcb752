"""Augmentation of training batches where the network runs: colour, RandAugment, erasing, mixup, cutmix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from a2video.errors import InputError

NUM_RAND_AUGMENT_OPS = 15  # in kornia's list
MAX_ALPHA = 1000.0  # of a Beta distribution; beyond it all shares are one half


class Augment:
    """Changes clips at random: each clip in another way, all frames of a clip in the same way.

    In this order: colour, RandAugment, `transforms`, erasing, then mixup or cutmix. What is 0 is off. Mirroring is not
    here: it is free in the crop (data.horizontal_flip).

    Args:
        brightness: factor from [1 - brightness, 1 + brightness]; in [0, 1].
        contrast: likewise.
        saturation: likewise.
        hue: turn of the hue from [-hue, hue], in full turns; in [0, 0.5].
        num_ops: operations of RandAugment (Cubuk et al., 2020) on each clip, drawn from kornia's 15.
        magnitude: of all of them, in (0, 30).
        erasing: probability that a clip loses a rectangle of 2 to 33 % of its area to mid-grey (Zhong et al., 2020).
        mixup: alpha of the Beta distribution that the shares of two mixed clips are drawn from (Zhang et al., 2018).
        cutmix: alpha likewise of the area that is taken from another clip (Yun et al., 2019). With mixup too, each
            batch gets one of both, equally likely.
        transforms: further augmentations of kornia for images, such as kornia.augmentation.RandomGrayscale.

    Raises:
        InputError: a value is out of range, or kornia is needed and not installed.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        num_ops: int = 0,
        magnitude: int = 9,
        erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        transforms: list[nn.Module] | None = None,
    ) -> None:
        for name, value, largest in (
            ("brightness", brightness, 1.0),
            ("contrast", contrast, 1.0),
            ("saturation", saturation, 1.0),
            ("hue", hue, 0.5),
            ("num_ops", num_ops, NUM_RAND_AUGMENT_OPS),
            ("erasing", erasing, 1.0),
            ("mixup", mixup, MAX_ALPHA),
            ("cutmix", cutmix, MAX_ALPHA),
        ):
            if not 0 <= value <= largest:
                raise InputError(f"data.augment.{name} must be in [0, {largest:g}], got {value}")
        if not 0 < magnitude < 30:
            raise InputError(f"data.augment.magnitude must be between 0 and 30, got {magnitude}")
        self.mixup = mixup
        self.cutmix = cutmix
        self._steps: list[Callable[[Tensor], Tensor]] = []  # on values (N, 3, T, H, W) in [0, 1]
        if brightness or contrast or saturation or hue:
            jitter = _kornia().ColorJitter(brightness, contrast, saturation, hue, p=1.0)
            self._steps.append(_same_on_frames(jitter))
        if num_ops:
            self._steps.append(_RandAugment(num_ops, magnitude))
        for transform in transforms or []:
            if not isinstance(transform, _kornia().AugmentationBase2D):
                raise InputError(
                    f"data.augment.transforms takes augmentations of kornia for images, got {type(transform).__name__}"
                )
            self._steps.append(_same_on_frames(transform))
        if erasing:
            self._steps.append(_same_on_frames(_kornia().RandomErasing(value=0.5, p=erasing)))

    @torch.no_grad()
    def __call__(self, clips: Tensor, labels: Tensor, num_classes: int, seed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Augments a batch.

        Args:
            clips: uint8 (B, V, 3, T, H, W).
            labels: int64 (B,).
            num_classes: of the soft labels.
            seed: whole numbers from 0 up that alone decide what is drawn; torch's global generators stay as they are.

        Returns:
            Clips, float32 in [0, 255] of the same shape, and labels: the same or, with mixup or cutmix, the share of
            each class, float32 (B, num_classes).
        """
        with _seeded(seed, clips.device):
            values = clips.flatten(0, 1).float() / 255
            for step in self._steps:
                values = step(values)
            values = (values * 255).clamp(0, 255).view(*clips.shape[:2], *values.shape[1:])
            if not self.mixup and not self.cutmix:
                return values, labels
            targets = nn.functional.one_hot(labels, num_classes).float()
            is_mixup = not self.cutmix or (self.mixup > 0 and bool(torch.rand(()) < 0.5))
            alpha = self.mixup if is_mixup else self.cutmix
            shares = torch.distributions.Beta(alpha, alpha).sample((len(clips),))
            if is_mixup:
                return mix_up(values, targets, shares)
            return cut_mix(values, targets, draw_boxes(1 - shares, *values.shape[-2:]))


def mix_up(clips: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Each video's clips blended with those of the one before it in the batch (of the first, the last).

    Args:
        clips: float (B, V, 3, T, H, W).
        targets: float (B, num_classes).
        shares: (B,) in [0, 1], what is left of a video itself.
    """
    shares = shares.to(clips)
    mixed = torch.lerp(clips.roll(1, 0), clips, shares.view(-1, 1, 1, 1, 1, 1))
    return mixed, torch.lerp(targets.roll(1, 0), targets, shares.view(-1, 1))


def cut_mix(clips: Tensor, targets: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Each video's clips with a box, the same in all frames, from those of the one before it in the batch.

    Args:
        clips: float (B, V, 3, T, H, W).
        targets: float (B, num_classes); they are shared out by area.
        boxes: int64 (B, 4): top, bottom, left, right, in pixels, the ends not included.
    """
    height, width = clips.shape[-2:]
    shares = 1 - (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
    top, bottom, left, right = boxes.to(clips.device).t()[:, :, None]  # each (B, 1)
    rows, columns = (torch.arange(size, device=clips.device) for size in (height, width))
    in_rows, in_columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    inside = (in_rows[:, :, None] & in_columns[:, None])[:, None, None, None]  # (B, 1, 1, 1, H, W)
    mixed = torch.where(inside, clips.roll(1, 0), clips)
    return mixed, torch.lerp(targets.roll(1, 0), targets, shares.to(targets)[:, None])


def draw_boxes(areas: Tensor, height: int, width: int) -> Tensor:
    """Boxes (B, 4) around uniform centres, with the frame's aspect and `areas` of its area, cut off at its edges."""
    edges = []
    for size in (height, width):
        half = areas.sqrt() * size / 2
        centre = torch.rand(len(areas)) * size
        edges += [(centre - half).round().clamp(min=0), (centre + half).round().clamp(max=size)]
    return torch.stack(edges, 1).long()


class _RandAugment:
    """kornia's RandAugment with operations and parameters drawn for each clip, all its frames alike."""

    def __init__(self, num_ops: int, magnitude: int) -> None:
        kornia = _kornia()
        self.rand_augment = kornia.auto.RandAugment(num_ops, magnitude)
        self.item = kornia.container.params.ParamItem

    def __call__(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) in [0, 1]."""
        changed = []
        for clip in clips:
            frames = clip.transpose(0, 1)  # (T, 3, H, W)
            drawn = self.rand_augment.forward_parameters(torch.Size([1, *frames.shape[1:]]))
            changed.append(self.rand_augment(frames, params=self._repeated(drawn, len(frames))).transpose(0, 1))
        return torch.stack(changed)

    def _repeated(self, drawn: Any, num_frames: int) -> Any:
        """Parameters drawn for one image, nested in lists and items, for that many."""
        if isinstance(drawn, self.item):
            return self.item(drawn.name, self._repeated(drawn.data, num_frames))
        if isinstance(drawn, list):
            return [self._repeated(item, num_frames) for item in drawn]
        return {
            name: value.expand(num_frames, *value.shape[1:]) if value.ndim and len(value) == 1 else value
            for name, value in drawn.items()
        }


def _same_on_frames(augmentation: nn.Module) -> nn.Module:
    module: nn.Module = _kornia().VideoSequential(augmentation, data_format="BCTHW", same_on_frame=True)
    return module


def _kornia() -> Any:
    """kornia.augmentation, imported only when it is asked for."""
    try:
        import kornia.augmentation
    except ImportError as error:
        raise InputError(f"data.augment needs kornia, which does not import ({error}): pip install kornia") from error
    return kornia.augmentation


@contextmanager
def _seeded(seed: Sequence[int], device: torch.device) -> Iterator[None]:
    """torch's generators of the CPU and `device` start from `seed`, and are put back afterwards."""
    number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        for gpu in devices:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(number)
        yield
