"""Brings the scored views of any number of ranks together, each exactly once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from a2video.scores import COLUMNS, Rows


class ScoreRows(Metric):
    """Keeps the logits of every (video, view); a view that arrives twice counts once.

    Each rank gets all rows on its device: 20,000 videos of 30 views and 400 classes are 1 GB, of which there are two
    copies while they are put together.

    Args:
        num_classes: length of the logits (K).
    """

    full_state_update = False
    views: list[Tensor]
    logits: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("views", "logits"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forgets everything. An empty row is left, so that a rank without videos can join in gathering."""
        super().reset()
        none = torch.empty(0, len(COLUMNS), dtype=torch.int32, device=self.device)
        self.update(none, torch.empty(0, self.num_classes, device=self.device))

    def update(self, views: Tensor, logits: Tensor) -> None:
        """Adds views.

        Args:
            views: int32 (N, len(COLUMNS)), see a2video.scores.
            logits: (N, K).

        Raises:
            ValueError: the logits have another shape.
        """
        expected = (len(views), self.num_classes)
        if logits.shape != expected:
            raise ValueError(f"expected logits of shape {expected}, got {tuple(logits.shape)}")
        self.views.append(views)
        self.logits.append(logits.float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """The views and logits of all ranks, in any order."""
        return dim_zero_cat(self.views), dim_zero_cat(self.logits)

    def rows(self) -> Rows:
        """What all ranks have seen, sorted by video and view; all ranks must ask together."""
        views, logits = self.compute()
        return Rows(
            views.cpu().numpy().reshape(-1, len(COLUMNS)).astype(np.int32, copy=False),
            logits.cpu().numpy().reshape(-1, self.num_classes),
        ).once()
