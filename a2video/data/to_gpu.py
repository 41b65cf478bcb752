"""How batches come to a GPU: from page-locked memory, and beside what it computes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from a2video.data.dataset import Batch


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which a GPU copies fastest."""
    return cast(Batch, {k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in batch.items()})


class CopyBeside:
    """Copies batches to the current GPU on a stream of its own, in a thread that may wait for it.

    Batches are complete when they are given back. Whoever computes with one calls `hand_over` first.
    """

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch) -> Batch:
        """A copy on the GPU."""
        source = pinned(batch)
        with torch.cuda.stream(self.stream):
            copy = {k: v.to("cuda", non_blocking=True) if isinstance(v, Tensor) else v for k, v in source.items()}
        self.stream.synchronize()  # the page-locked memory is free from here on
        return cast(Batch, copy)


def hand_over(batch: Batch) -> None:
    """Lets the memory of a copied batch be used again only when what the current stream does with it is done."""
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(torch.cuda.current_stream())
