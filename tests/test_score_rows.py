from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from a2video.score_rows import ScoreRows
from a2video.scores import COLUMNS, VIDEO, VIEW

NUM_VIDEOS, NUM_VIEWS, NUM_CLASSES = 7, 3, 6


def table() -> tuple[torch.Tensor, torch.Tensor]:
    views = torch.zeros(NUM_VIDEOS * NUM_VIEWS, len(COLUMNS), dtype=torch.int32)
    views[:, VIDEO] = torch.arange(len(views)) // NUM_VIEWS
    views[:, VIEW] = torch.arange(len(views)) % NUM_VIEWS
    return views, torch.randn(len(views), NUM_CLASSES, generator=torch.Generator().manual_seed(0))


def test_sorted_and_each_view_once() -> None:
    gathered = ScoreRows(NUM_CLASSES)
    views, logits = table()
    for part in ([20, 4, 0], [1, 2, 3], list(range(5, 20)), [4, 20]):  # any batches, any order
        gathered.update(views[part], logits[part])
    rows = gathered.rows()
    assert np.array_equal(rows.views, views.numpy())
    assert np.array_equal(rows.logits, logits.numpy())


def test_wrong_shape_and_nothing_scored() -> None:
    gathered = ScoreRows(NUM_CLASSES)
    with pytest.raises(ValueError, match=r"expected logits of shape \(1, 6\), got \(1, 2\)"):
        gathered.update(table()[0][:1], torch.zeros(1, 2))
    assert gathered.rows().logits.shape == (0, NUM_CLASSES)


def _rank(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    gathered = ScoreRows(NUM_CLASSES)
    views, logits = table()
    mine = (
        [list(range(21)), [15, 16, 17]][rank] if world == 2 else [[*range(9), 18, 19, 20], list(range(9, 18)), []][rank]
    )
    if mine:
        gathered.update(views[mine], logits[mine])
    rows = gathered.rows()
    torch.save((torch.from_numpy(rows.views), torch.from_numpy(rows.logits)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_agree_and_keep_every_view_once(tmp_path: Path, world: int) -> None:
    """Two ranks that share a video, and three of which one has none."""
    mp.spawn(_rank, (world, str(tmp_path)), nprocs=world)
    for rank in range(world):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(got, wanted) for got, wanted in zip(result, table(), strict=True))
