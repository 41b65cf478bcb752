from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from a2video.gathering import gather_rows
from a2video.scores import COLUMNS, VIDEO, VIEW, Rows

NUM_VIDEOS, NUM_VIEWS, NUM_CLASSES = 7, 3, 6
CPU = torch.device("cpu")


def table() -> Rows:
    views = np.zeros((NUM_VIDEOS * NUM_VIEWS, len(COLUMNS)), np.int32)
    views[:, VIDEO], views[:, VIEW] = np.divmod(np.arange(len(views)), NUM_VIEWS)
    return Rows(views, np.random.default_rng(0).random((len(views), NUM_CLASSES), np.float32))


def test_sorted_and_each_view_once() -> None:
    parts = [table()[part] for part in ([20, 4, 0], [1, 2, 3], [], list(range(5, 20)), [4, 20])]  # any order
    rows = gather_rows(parts, CPU)
    assert np.array_equal(rows.views, table().views)
    assert np.array_equal(rows.logits, table().logits)
    assert gather_rows([table()[:0]], CPU).logits.shape == (0, NUM_CLASSES)


def _rank(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    mine = [list(range(21)), [15, 16, 17]][rank] if world == 2 else [[*range(9), 18, 19, 20], [*range(9, 18)], []][rank]
    rows = gather_rows([table()[mine]], CPU)
    np.savez(f"{folder}/{rank}.npz", views=rows.views, logits=rows.logits)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_every_view_of_all_ranks_once(tmp_path: Path, world: int) -> None:
    """Two ranks that share a video, and three of which one has none."""
    mp.spawn(_rank, (world, str(tmp_path)), nprocs=world)
    for rank in range(world):
        with np.load(tmp_path / f"{rank}.npz") as found:
            wanted = table() if rank == 0 else table()[:0]
            assert np.array_equal(found["views"], wanted.views)
            assert np.array_equal(found["logits"], wanted.logits)
