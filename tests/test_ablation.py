"""benchmarks/ablation.py in its short form, really trained, and the statistics of its tables."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from torch import Tensor, nn

from a2video.data.pyav_reader import PyAVReader
from a2video.inference.attention import Attention, BlockAttention
from a2video.models import DoubleAttention, ResNet3d
from a2video.models.dims import BATCH_NORMS


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tests import the scripts."""
    monkeypatch.syspath_prepend(REPOSITORY / "data_prep")
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def test_short_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ablation

    monkeypatch.setattr(sys, "argv", ["ablation.py", "--size", "short", "--jobs", "1", "--out", str(tmp_path)])
    monkeypatch.chdir(REPOSITORY)
    ablation.main()
    written = (tmp_path / "ablation_short.md").read_text()
    two = "2 double attention, conv3 and conv4"
    for name in (f"{two}, c/4", f"local, {two}"):
        row = rf"^\| {name} \| 1 \| 0\.0\d+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ "
        assert re.search(row, written, re.MULTILINE)
        assert re.search(rf"^\| {name} \| [\d.]+%; 0\.00\d ", written, re.MULTILINE)  # asleep, after a step
    assert re.search(rf"^\| {two}, c/4 \| [-+][\d.]+ \| [-+][\d.]+ ", written, re.MULTILINE)
    assert re.search(rf"^\| minus {two}, c/4 \| clip ", written, re.MULTILINE)
    assert (tmp_path / "ablation_short_two_objects.png").read_bytes().startswith(b"\x89PNG")
    assert f"| local, {two} | conv4.1 | 1 | " in written
    assert all((tmp_path / f"ablation_short_{label}.png").exists() for label in ("left", "opposite_ways"))
    folder = tmp_path / "motion/a2net_resnet26-conv3.1-conv4.1-r4/0"
    started = torch.load(tmp_path / "first/resnet26/0/last.ckpt", weights_only=True)["state_dict"]
    ended = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert set(started) < set(ended)
    assert not torch.equal(started["network.fc.weight"], ended["network.fc.weight"])
    assert "26 of new blocks left new" in (folder / "log.txt").read_text()


def test_what_is_done_is_not_done_again_and_a_failing_training_is_named(tmp_path: Path) -> None:
    from ablation_runs import Run

    run = Run(tmp_path / "it", ["--config", "configs/motion/none.yaml"], [])
    with pytest.raises(RuntimeError, match=r"it: .*fit ended with status 2: .*none\.yaml"):
        run.finish()
    assert not (tmp_path / "it/commands.txt").exists()
    (tmp_path / "it/commands.txt").write_text(run.text)
    (tmp_path / "it/results.json").write_text("{}")
    run.finish()  # has been done
    start = tmp_path / "last.ckpt"
    start.touch()
    later = Run(tmp_path / "it", run.options, ["--model.pretrained", str(start)])
    with pytest.raises(RuntimeError, match="status 2"):
        later.finish()  # other options
    (tmp_path / "it/commands.txt").write_text(later.text)
    (tmp_path / "it/results.json").write_text("{}")
    os.utime(tmp_path / "it/commands.txt", (1, 1))
    with pytest.raises(RuntimeError, match="status 2"):
        later.finish()  # older than what it starts from


def test_rows_of_a_seed_start_alike() -> None:
    from ablation_networks import COMPARISONS, Network

    def weights(network: Network) -> dict[str, Tensor]:
        torch.manual_seed(3)
        return network.build(9, 2).state_dict()

    networks = {network for comparison in COMPARISONS for network in comparison.networks}
    assert len({network.folder for network in networks}) == len(networks)
    assert len({network.name for network in networks}) == len(networks)
    for network in networks:
        base, built = weights(network.start), weights(network)
        assert all(torch.equal(base[name], built[name]) for name in base)
        assert len(built) > len(base) or not network.places


def test_variants() -> None:
    import ablation_variants as variants

    torch.manual_seed(0)
    clip, x = torch.randn(2, 3, 8, 40, 40), torch.randn(2, 64, 2, 3, 3)
    builders = {variants.awake: nn.BatchNorm3d, variants.group_norm: nn.GroupNorm, variants.products: nn.BatchNorm3d}
    for awake, norm in builders.items():
        network = awake(9, ("conv3.1", "conv4.1"), 4, 8).eval()
        blocks = [module for module in network.modules() if isinstance(module, DoubleAttention)]
        assert [type(block.norm) for block in blocks] == [norm, norm]
        assert [block.norm.weight.detach().unique().tolist() for block in blocks] == [[1.0], [1.0]]
        assert network(clip).shape == (2, 9)
        assert not torch.equal(blocks[0](x), x)
    block = blocks[0]  # without softmaxes
    weights = [layer.weight.flatten(1) for layer in (block.theta, block.rho, block.phi, block.out)]
    biases = [layer.bias[:, None] for layer in (block.theta, block.rho, block.phi, block.out)]
    b, v, a = (w @ x.flatten(2) + bias for w, bias in zip(weights[:3], biases[:3], strict=True))
    z = torch.einsum("bml,bnl,bnk->bmk", a, b, v) / 18
    expected = block.norm((weights[3] @ z + biases[3]).view(x.shape))
    torch.testing.assert_close(block(x) - x, expected, rtol=1e-4, atol=1e-5)


def test_local_networks_see_the_rest_of_a_frame_through_blocks_alone() -> None:
    import ablation_variants as variants

    def seen(network: ResNet3d) -> list[int]:
        """Rows of the clip that one position of the last features depends on."""
        network.double().eval()
        for module in network.modules():
            if isinstance(module, BATCH_NORMS[3]):
                torch.nn.init.ones_(module.weight)  # blocks take part
        clip = torch.randn(1, 3, 8, 40, 40, dtype=torch.float64, requires_grad=True)
        network.features(clip)[0, :, 2, 5, 5].sum().backward()
        assert clip.grad is not None
        return clip.grad.abs().sum((0, 1, 2, 4)).nonzero().flatten().tolist()

    torch.manual_seed(0)
    assert seen(variants.local(9, 2)) == list(range(14, 27))
    for build in (variants.local_double_attention, variants.local_non_local):
        assert seen(build(9, ("conv4.1",), 4, 2)) == list(range(40))


def test_paired_differences() -> None:
    import ablation_tables as tables

    base = {0: 0.50, 1: 0.60, 2: 0.70}
    # +1, +2, +3 points: mean 2, standard deviation 1, half width 4.303 / sqrt(3)
    assert tables.difference({0: 0.51, 1: 0.62, 2: 0.73}, base) == "+2.0 [-0.5, +4.5]"
    assert tables.difference({0: 0.52, 1: 0.62, 2: 0.7201}, base) == "**+2.0 [+2.0, +2.0]**"
    assert tables.difference({0: 0.4}, base) == "-10.0"
    assert tables.interval([1.0]) == (1.0, math.inf)
    low, high = tables.wilson(0.5, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert tables.spread(base) == "60.0 ± 10.0"
    assert tables.spread({0: 0.5}) == "50.0"


def test_scores_of_a_run(tmp_path: Path) -> None:
    import ablation_tables as tables

    (tmp_path / "results.json").write_text('{"coverage": 1.0, "clip_top1": 0.25, "video_top1": 0.5}')
    (tmp_path / "per_class.csv").write_text(
        "class,videos,scored,clip_top1,video_top1\na,1,1,0,1.0\nb,1,1,0,0.5\nc,1,1,0,0\n"
    )
    found = tables.read_scores(tmp_path, {"first": ("a", "b"), "last": ("c",)})
    assert found == {"clip": 0.25, "video": 0.5, "first": 0.75, "last": 0.0}
    (tmp_path / "results.json").write_text('{"coverage": 0.9, "num_scored": 9, "num_videos": 10}')
    with pytest.raises(RuntimeError, match="only 9 of 10 videos"):
        tables.read_scores(tmp_path, {})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    counts = ["--num-train", "0", "--num-val", "0", "--num-test", "2", "--num-workers", "1"]
    subprocess.run(
        [sys.executable, REPOSITORY / "data_prep/motion.py", "--out", folder, "--difficulty", "medium", *counts],
        check=True,
    )
    return folder


def test_objects_are_where_they_were_drawn(videos: Path) -> None:
    import gather_maps as maps

    for index in range(2):
        with PyAVReader(videos / f"videos/test/{index:05d}.mp4") as video:
            frames = video.get_frames(range(60))
        x, y = maps.objects(videos, index).round().long().clamp(max=127).permute(2, 0, 1)  # (60, 2) each
        brightest = torch.from_numpy(frames).amax(3)
        assert float((brightest[torch.arange(60)[:, None], y, x] > 200).float().mean()) > 0.95
        assert float((brightest > 200).float().mean()) < 0.1


def test_weight_near_objects(videos: Path) -> None:
    import gather_maps as maps

    where, cells = maps.objects(videos, 0), 32
    at = (where[[0, 8]] * cells / 128).round().long() % cells  # of the first and the middle of 4 clip frames
    on = torch.zeros(1, 2, cells, cells)
    for time in range(2):
        for x, y in at[time].tolist():
            on[0, time, y, x] += 0.25
    even = torch.full_like(on, 1 / on.numel())
    block = BlockAttention("it", torch.cat([on, even]), torch.cat([even, even]))
    seconds = tuple(frame / 30 for frame in (0, 4, 8, 12))
    seen = Attention("", torch.zeros(3, 4, 40, 40), seconds, None, None, (block,))  # type: ignore[arg-type]
    near = maps.near_objects(block, seen, where)
    assert near.shape == (2, cells, cells)
    weight = (block.gather * near).sum((1, 2, 3)) / near.float().mean()
    assert weight[0] == pytest.approx(1 / float(near.float().mean()), rel=1e-5)  # all of it, among few positions
    assert float(near.float().mean()) < 0.2
    assert weight[1] == pytest.approx(1, rel=1e-5)
