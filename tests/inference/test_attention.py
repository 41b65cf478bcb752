"""The maps are what the blocks used, of the right block, clip and moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attending import CELLS, PREPROCESSING, SIDE, Looker, bright_cells, looking, randomized
from conftest import moving_square, write_video
from PIL import Image
from torch import Tensor, nn

from a2video.data.readers import ArrayReader, VideoError
from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference.attention import ClipAround, attention, clip_around, watched_blocks
from a2video.inference.backends import Backend
from a2video.inference.classifier import VideoClassifier
from a2video.models import DoubleAttention, a2net_tiny, insert_blocks, resnet26
from a2video.models.double_attention import Form


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright_cells(tmp_path_factory.mktemp("videos") / "cells.mp4")


def recomputed(block: DoubleAttention, x: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    """The block's output (c, T', H', W') by the paper's equations from its input and the two maps (c_n, T', H', W')."""
    a = torch.einsum("mc,cthw->mthw", block.phi.weight.flatten(1), x) + block.phi.bias.view(-1, 1, 1, 1)
    g = torch.einsum("mthw,nthw->mn", a, gather)
    z = torch.einsum("mn,nthw->mthw", g, distribute)
    y = torch.einsum("cm,mthw->cthw", block.out.weight.flatten(1), z) + block.out.bias.view(-1, 1, 1, 1)
    return x + block.norm(y[None])[0]


@pytest.mark.parametrize("form", ["textbook", "reassociated"])
@torch.no_grad()
def test_maps_are_what_the_block_used(form: Form) -> None:
    network = randomized(a2net_tiny(3))
    blocks = [module for module in network.modules() if isinstance(module, DoubleAttention)]
    passed: list[tuple[Tensor, Tensor]] = []
    for block in blocks:
        block.form = form
        block.register_forward_hook(lambda _, inputs, output: passed.append((inputs[0][0], output[0])))
    with watched_blocks(network) as found:
        network(torch.randn(1, 3, 4, 32, 32))
    assert [maps.name for maps in found] == ["conv3.1.attention", "conv4.1.attention"]
    assert [tuple(maps.gather.shape) for maps in found] == [(32, 4, 4, 4), (64, 2, 4, 4)]
    for block, (x, y), maps in zip(blocks, passed, found, strict=True):
        torch.testing.assert_close(recomputed(block, x, maps.gather, maps.distribute), y, atol=1e-5, rtol=1e-5)
        assert (recomputed(block, x, maps.gather.flip(1), maps.distribute) - y).abs().max() > 1e-2
        assert (recomputed(block, x, maps.gather, maps.distribute.flip(1)) - y).abs().max() > 1e-2
        torch.testing.assert_close(maps.gather.sum((1, 2, 3)), torch.ones(len(maps.gather)))
        torch.testing.assert_close(maps.distribute.sum(0), torch.ones(maps.distribute.shape[1:]))
        assert maps.usage.sum().item() == pytest.approx(1)
        assert maps.usage[5].item() == pytest.approx(maps.distribute[5].mean().item())


def test_bright_places_are_found_when_and_where_they_are(video: Path) -> None:
    found = attention(looking(Looker()), video)
    assert found.seconds == pytest.approx((0.4, 0.6, 0.8, 1.0))
    assert found.clip.shape == (3, len(CELLS), SIDE, SIDE)
    (block,) = found.blocks
    assert block.name == "block"
    for time, (row, column) in enumerate(CELLS):
        for maps in (block.gather, block.distribute):
            assert divmod(int(maps[1, time].argmax()), 4) == (row, column)
        assert found.clip[:, time, 8 * row, 8 * column].min() > 250
        assert block.distribute[1, time, row, column] > 0.6  # of three descriptors, 1 by brightness
        assert block.distribute[1, time, 3, 0] < 0.2  # dark is negative once normalised
    assert block.gather[0].flatten().tolist() == pytest.approx([1 / 64] * 64)


def test_predictions_are_those_of_classifying(video: Path) -> None:
    preprocessing = replace(PREPROCESSING, crop_size=24, num_clips=3, num_crops=3)
    classifier = looking(randomized(a2net_tiny(3)), preprocessing)
    found = attention(classifier, video)
    assert found.of_video == classifier(video)
    one_view = looking(classifier.network, preprocessing.one_view)
    assert (found.of_clip,) == one_view(video).clips
    assert found.of_clip.ranked != found.of_video.ranked
    alone = attention(one_view, video)
    assert alone.of_video == one_view(video)
    late = attention(one_view, video, at_seconds=1.3)
    assert late.seconds == pytest.approx((0.8, 1.0, 1.2, 1.4))  # the last that fits
    assert late.of_video == alone.of_video
    assert late.of_clip.start_seconds == pytest.approx(0.8)


def test_no_hook_stays(video: Path) -> None:
    network = Looker()

    def num_hooks() -> int:
        return sum(len(module._forward_hooks) for module in network.modules())

    attention(looking(network), video)
    assert num_hooks() == 0
    network.block.register_forward_pre_hook(lambda *_: pytest.fail("no hooks") if num_hooks() != 3 else None)
    with pytest.raises(ValueError, match=r"expected \(B, 3, then 3 position"), watched_blocks(network):
        network.block(torch.zeros(1, 5, 1, 1, 1))
    assert num_hooks() == 0


def test_blocks_of_other_dimensions(video: Path, tmp_path: Path) -> None:
    (images,) = attention(looking(Looker(dims=2)), video).blocks
    assert images.gather.shape == (3, 4, 4, 4)
    torch.testing.assert_close(images.gather.sum((2, 3)), torch.ones(3, 4))  # each frame is an image of its own
    assert [divmod(int(frame.argmax()), 4) for frame in images.gather[1]] == list(CELLS)
    (sequence,) = attention(looking(Looker(dims=1)), video).blocks
    assert sequence.gather.shape == sequence.distribute.shape == (3, 4, 1, 1)
    Image.fromarray(moving_square(1, 1)[0]).save(tmp_path / "picture.png")
    one_frame = looking(Looker(), Preprocessing(1, 1, 32, 32, 1, 1))
    picture = attention(one_frame, tmp_path / "picture.png", at_seconds=0)
    assert picture.blocks[0].gather.shape == (3, 1, 4, 4)
    assert picture.seconds == (0,)


def test_blocks_put_into_a_network_and_used_twice(video: Path) -> None:
    layers = nn.Sequential(nn.Conv3d(3, 4, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    network = insert_blocks(layers, {"0": DoubleAttention})
    (block,) = attention(looking(network), video).blocks
    assert (block.name, block.gather.shape) == ("0.attention", (2, 1, 8, 8))
    twice = nn.Sequential(network[0], network[1], network[0].attention, *layers[2:])
    found = attention(looking(twice), video).blocks
    assert [block.name for block in found] == ["0.attention", "0.attention (pass 2)"]
    assert not torch.equal(found[0].gather, found[1].gather)


def test_networks_without_maps(video: Path) -> None:
    with pytest.raises(InputError, match=r"the network \(resnet26\) has no double attention block to look at"):
        attention(looking(resnet26(3)), video)

    class Other(Backend):
        def __call__(self, clips: Tensor) -> Tensor:
            return clips.new_zeros(len(clips), 3)

    with pytest.raises(InputError, match="runs in Other: give the checkpoint"):
        attention(VideoClassifier(Other(), ("a", "b", "c"), PREPROCESSING), video)

    class Halves(Looker):
        def forward(self, clips: Tensor) -> Tensor:
            return super().forward(torch.cat(clips.split(2, 2)))

    with pytest.raises(InputError, match="block 'block' got 2 clips made of one"):
        attention(looking(Halves()), video)
    with pytest.raises(VideoError, match="does not exist"):
        attention(looking(Looker()), video.with_name("gone.mp4"))


@pytest.mark.parametrize(
    ("middle", "num_available", "frames"),
    [
        (50, 100, [38, 46, 54, 62]),
        (0, 100, [0, 8, 16, 24]),
        (10, 100, [0, 8, 16, 24]),
        (99, 100, [75, 83, 91, 99]),
        (12, 25, [0, 8, 16, 24]),
        (3, 20, [0, 8, 16, 4]),  # shorter than a clip: looped
    ],
)
def test_clip_around_a_frame(middle: int, num_available: int, frames: list[int]) -> None:
    clip = ClipAround(middle, 4, 8, None)(num_available, np.random.default_rng(0))
    assert clip.tolist() == [frames]


def test_clip_around_a_moment() -> None:
    reader = ArrayReader(np.zeros((50, 4, 4, 3), np.uint8), fps=25)
    preprocessing = Preprocessing(3, 2, 4, 4)

    def frames(seconds: float, target_fps: float | None = None) -> list[int]:
        sampler = clip_around(reader, replace(preprocessing, target_fps=target_fps), seconds)
        times = reader.times if target_fps else None
        return sampler(len(reader), np.random.default_rng(0), times)[0].tolist()

    assert frames(0.4) == [8, 10, 12]
    assert frames(0.435) == [8, 10, 12]  # frame 10 is shown until 0.44
    assert frames(2.0) == [45, 47, 49]
    assert frames(1.0, target_fps=5) == [15, 25, 35]
    for seconds in (2.01, -0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"<frames> lasts 2.00 seconds: choose a moment from 0 to that, not"):
            frames(seconds)


def test_a_video_shorter_than_a_clip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", moving_square(1, 3), fps=10)
    assert attention(looking(Looker()), path, at_seconds=0.2).seconds == pytest.approx((0, 0.2, 0.1, 0))
