"""What computes the logits: torch, or another runtime with an exported network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.inference.scoring import score_views


class Backend(ABC):
    """Turns clips into logits, in evaluation mode."""

    @abstractmethod
    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 clips (N, 3, T, H, W) on the CPU, N >= 1 -> logits float32 (N, num_classes) on the CPU."""


class TorchBackend(Backend):
    """A torch network on a device.

    Args:
        network: normalised clips (B, 3, T, H, W) -> logits (B, num_classes).
        preprocessing: whose normalisation the network expects.
        device: "auto" takes a GPU when there is one; otherwise any torch device, such as "cpu" or "cuda:1".
        num_threads: of the CPU; torch.get_num_threads() when None.

    Raises:
        InputError: the device cannot be used.
    """

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, device: str = "auto", num_threads: int | None = None
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.network = network.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].partition(", ")[0]  # torch may go on with all devices it has heard of
            raise InputError(f"device {device!r} cannot be used ({reason}): choose auto, cpu or a GPU") from error
        self.preprocessing = preprocessing
        self.device = torch.device(device)
        self.num_threads = num_threads

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        """See Backend."""
        with _threads(self.num_threads):
            return score_views(self.network, self.preprocessing, clips.to(self.device)).float().cpu()


@contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """Lets torch compute with that many threads for a while."""
    before = torch.get_num_threads()
    if num_threads is None or num_threads == before:
        yield
        return
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
