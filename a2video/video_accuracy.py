"""Clip-level and video-level accuracy over any number of ranks, every video exactly once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class VideoAccuracy(Metric):
    """Keeps the logits of every (video, view) and scores them at the end.

    clip-level: the share of views whose own prediction is right. video-level: the share of videos whose mean of the
    views' probabilities is right. A video that arrives twice counts once. In [0, 1]; NaN when nothing was scored.

    Args:
        num_views: views of each video (V).
        num_classes: length of the logits (K).
    """

    full_state_update = False
    video_indices: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(self, num_views: int, num_classes: int) -> None:
        super().__init__()
        self.num_views = num_views
        self.num_classes = num_classes
        for name in ("video_indices", "labels", "logits"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forgets everything. An empty row is left, so that a rank without videos can join in gathering."""
        super().reset()
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        self.update(none, none, torch.empty(0, self.num_views, self.num_classes, device=self.device))

    def update(self, video_indices: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Adds the videos of a batch.

        Args:
            video_indices: int64 (B,), a video's place in its list.
            labels: int64 (B,).
            logits: (B, V, K).

        Raises:
            ValueError: the logits have another shape.
        """
        expected = (len(video_indices), self.num_views, self.num_classes)
        if logits.shape != expected:
            raise ValueError(f"expected logits of shape {expected}, got {tuple(logits.shape)}")
        self.video_indices.append(video_indices)
        self.labels.append(labels)
        self.logits.append(logits.float())

    def compute(self) -> dict[str, Tensor]:
        """Scores what all ranks have seen, sorted by video.

        Returns:
            Scalars clip_top1, clip_top5, video_top1, video_top5, then video_indices (N,), labels (N,) and the mean
            probabilities probs (N, K); torchmetrics drops the dimensions of those with a single
            element. With fewer than 5 classes top5 is the accuracy among all of them, that is 1.
        """
        indices, labels, logits = (dim_zero_cat(s) for s in (self.video_indices, self.labels, self.logits))
        order = torch.from_numpy(np.unique(indices.cpu().numpy(), return_index=True)[1]).to(indices.device)
        indices, labels = indices[order], labels[order]
        view_probs = logits[order].softmax(-1)  # (N, V, K)
        probs = view_probs.mean(1)  # (N, K)
        scores = {"video_indices": indices, "labels": labels, "probs": probs}
        for k in (1, 5):
            scores[f"clip_top{k}"] = top_accuracy(view_probs.flatten(0, 1), labels.repeat_interleave(self.num_views), k)
            scores[f"video_top{k}"] = top_accuracy(probs, labels, k)
        return scores


def top_accuracy(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """The share of rows of `scores` (N, K) that have their label among the k largest."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).float().mean()
