from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from a2video.video_accuracy import VideoAccuracy

NUM_VIDEOS, NUM_VIEWS, NUM_CLASSES = 7, 3, 6


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(NUM_CLASSES, (NUM_VIDEOS,), generator=generator)
    logits = 2 * torch.randn(NUM_VIDEOS, NUM_VIEWS, NUM_CLASSES, generator=generator)
    return torch.arange(NUM_VIDEOS), labels, logits


def by_hand() -> dict[str, float]:
    _, labels, logits = rows()
    hits = {"clip_top1": [], "clip_top5": [], "video_top1": [], "video_top5": []}
    for label, views in zip(labels.tolist(), logits.softmax(-1).tolist(), strict=True):
        mean = [sum(view[k] for view in views) / NUM_VIEWS for k in range(NUM_CLASSES)]
        for level, vectors in (("clip", views), ("video", [mean])):
            for vector in vectors:
                rank = sum(p > vector[label] for p in vector)
                hits[f"{level}_top1"].append(rank < 1)
                hits[f"{level}_top5"].append(rank < 5)
    return {name: sum(values) / len(values) for name, values in hits.items()}


def scores(metric: VideoAccuracy) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items() if value.ndim == 0}


def test_clip_and_video_level_by_hand() -> None:
    metric = VideoAccuracy(NUM_VIEWS, NUM_CLASSES)
    indices, labels, logits = rows()
    for part in ([4, 0], [1], [6, 5, 2, 3]):  # any batches, any order
        metric.update(indices[part], labels[part], logits[part])
    assert scores(metric) == pytest.approx(by_hand())
    assert 0 < by_hand()["clip_top1"] < 1
    assert by_hand()["clip_top1"] != by_hand()["video_top1"]
    assert metric.compute()["video_indices"].tolist() == list(range(NUM_VIDEOS))


def test_a_video_that_arrives_twice_counts_once() -> None:
    metric = VideoAccuracy(NUM_VIEWS, NUM_CLASSES)
    indices, labels, logits = rows()
    metric.update(indices, labels, logits)
    metric.update(indices[:2], labels[:2], logits[:2])
    assert scores(metric) == pytest.approx(by_hand())


def test_views_that_differ_in_number_and_an_extra_one() -> None:
    """Video 0 has two views and video 3 has one; the last of each is extra and counts for neither level."""
    logits = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 99.0]])
    metric = VideoAccuracy(None, 2, "logits", has_extra_centre=True)
    metric.update(torch.tensor([3]), torch.tensor([1]), logits[None, 1:])
    metric.update(torch.tensor([0]), torch.tensor([0]), logits[None])
    found = metric.compute()
    assert found["clip_top1"] == pytest.approx(2 / 3)
    assert found["video_top1"] == 1
    assert found["video_indices"].tolist() == [0, 3]
    assert found["probs"][:, 1].tolist() == pytest.approx([1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-1))])
    mean_of_probs = VideoAccuracy(None, 2, has_extra_centre=True)
    mean_of_probs.update(torch.tensor([0]), torch.tensor([0]), logits[None])
    by_hand = (1 / (1 + math.exp(4)) + 1 / (1 + math.exp(-1))) / 2
    assert mean_of_probs.compute()["probs"].flatten()[1] == pytest.approx(by_hand)


def test_wrong_shape_and_nothing_scored() -> None:
    metric = VideoAccuracy(NUM_VIEWS, NUM_CLASSES)
    with pytest.raises(ValueError, match=r"expected logits of shape \(1, 3, 6\), got \(1, 2, 6\)"):
        metric.update(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 2, 6))
    assert metric.compute()["probs"].shape == (0, NUM_CLASSES)


def _rank(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    metric = VideoAccuracy(NUM_VIEWS, NUM_CLASSES)
    indices, labels, logits = rows()
    mine = [list(range(NUM_VIDEOS)), [5]][rank] if world == 2 else [[0, 1, 2, 6], [3, 4, 5], []][rank]
    if mine:
        metric.update(indices[mine], labels[mine], logits[mine])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_agree_and_count_every_video_once(tmp_path: Path, world: int) -> None:
    """Two ranks that share a video, and three of which one has none."""
    mp.spawn(_rank, (world, str(tmp_path)), nprocs=world)
    alone = VideoAccuracy(NUM_VIEWS, NUM_CLASSES)
    alone.update(*rows())
    for rank in range(world):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(result[name], value) for name, value in alone.compute().items())
