"""From uint8 clips to logits, and from the logits of views to probabilities; the same in testing and inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from a2video.data.protocols import Average
from a2video.data.transforms import Preprocessing

MAX_CLIPS = 16  # clips in one forward pass: bounds the memory of a test with many views


def score_views(network: nn.Module, preprocessing: Preprocessing, clips: Tensor) -> Tensor:
    """Logits (N, num_classes) of uint8 clips (N, 3, T, H, W) on the network's device, MAX_CLIPS at a time."""
    return torch.cat([network(preprocessing.normalize(part)) for part in torch.split(clips, MAX_CLIPS)])


def score_steadily(network: nn.Module, preprocessing: Preprocessing, clips: Tensor, num_together: int) -> Tensor:
    """The same, with exactly `num_together` clips in every forward pass; the last one is filled with black clips.

    How many clips go through a network together changes the last bits of its logits (up to 1e-6 on a CPU, for other
    kernels are chosen), and so does the number of threads; which clips they are does not. So what comes out depends
    neither on batches nor on ranks.
    """
    num_black = -len(clips) % num_together
    filled = torch.cat([clips, clips.new_zeros(num_black, *clips.shape[1:])]) if num_black else clips
    parts = torch.split(filled, num_together)
    return torch.cat([network(preprocessing.normalize(part)) for part in parts])[: len(clips)]


def average_views(logits: Tensor, average: Average) -> Tensor:
    """The probabilities (K,) of a video from the logits (V, K) of its views; the same in testing and inference.

    Args:
        logits: of all views.
        average: "probs": the mean of the views' probabilities; "logits": the probabilities of the mean logits.
    """
    logits = logits.float()
    return logits.softmax(-1).mean(0) if average == "probs" else logits.mean(0).softmax(-1)
