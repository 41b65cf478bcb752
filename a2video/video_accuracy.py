"""Clip-level and video-level accuracy over any number of ranks, every video exactly once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from a2video.data.protocols import Average
from a2video.inference import average_views


class VideoAccuracy(Metric):
    """Keeps the logits of every (video, view), one row each, and scores them at the end.

    clip-level: the share of views whose own prediction is right. video-level: the share of videos whose average of
    the views is right. A video that arrives twice counts once. In [0, 1]; NaN when nothing was scored.

    Args:
        num_views: views of each video (V); None where that depends on the video.
        num_classes: length of the logits (K).
        average: see Protocol.
        has_extra_centre: the last view of each video counts for neither.
    """

    full_state_update = False
    video_indices: list[Tensor]
    places: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(
        self, num_views: int | None, num_classes: int, average: Average = "probs", has_extra_centre: bool = False
    ) -> None:
        super().__init__()
        self.num_views = num_views
        self.num_classes = num_classes
        self.average: Average = average
        self.has_extra_centre = has_extra_centre
        for name in ("video_indices", "places", "labels", "logits"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forgets everything. An empty row is left, so that a rank without videos can join in gathering."""
        super().reset()
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        self.update(none, none, torch.empty(0, self.num_views or 1, self.num_classes, device=self.device))

    def update(self, video_indices: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Adds the videos of a batch.

        Args:
            video_indices: int64 (B,), a video's place in its list.
            labels: int64 (B,).
            logits: (B, V, K).

        Raises:
            ValueError: the logits have another shape.
        """
        expected = (len(video_indices), self.num_views or logits.shape[1], self.num_classes)
        if logits.shape != expected:
            raise ValueError(f"expected logits of shape {expected}, got {tuple(logits.shape)}")
        num_views = logits.shape[1]
        self.video_indices.append(video_indices.repeat_interleave(num_views))
        self.places.append(torch.arange(num_views, device=logits.device).repeat(len(logits)))
        self.labels.append(labels.repeat_interleave(num_views))
        self.logits.append(logits.flatten(0, 1).float())

    def compute(self) -> dict[str, Tensor]:
        """Scores what all ranks have seen, sorted by video.

        Returns:
            Scalars clip_top1, clip_top5, video_top1, video_top5, then video_indices (N,), labels (N,) and the mean
            probabilities probs (N, K); torchmetrics drops the dimensions of those with a single
            element. With fewer than 5 classes top5 is the accuracy among all of them, that is 1.
        """
        indices, places, labels, logits = (
            dim_zero_cat(state) for state in (self.video_indices, self.places, self.labels, self.logits)
        )
        keys = torch.stack([indices, places], 1).cpu().numpy()
        rows = torch.from_numpy(np.unique(keys, axis=0, return_index=True)[1]).to(indices.device)
        indices, counts = torch.unique_consecutive(indices[rows], return_counts=True)
        views = [video[: len(video) - self.has_extra_centre] for video in torch.split(logits[rows], counts.tolist())]
        labels = labels[rows][counts.cumsum(0) - 1]
        probs = torch.stack([average_views(video, self.average) for video in views]) if views else logits[:0]
        own = torch.cat([logits[:0], *views])
        own_labels = labels.repeat_interleave(counts - int(self.has_extra_centre))
        scores = {"video_indices": indices, "labels": labels, "probs": probs}
        for k in (1, 5):
            scores[f"clip_top{k}"] = top_accuracy(own.softmax(-1), own_labels, k)
            scores[f"video_top{k}"] = top_accuracy(probs, labels, k)
        return scores


def top_accuracy(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """The share of rows of `scores` (N, K) that have their label among the k largest."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).float().mean()
