"""A network that trains in no time, but with everything that must be restored; it can also make trouble."""

from __future__ import annotations

import os
import signal
import threading

from torch import Tensor, nn


class TinyNetwork(nn.Sequential):
    """Convolution, batch norm, dropout, classifier.

    Args:
        num_classes: logits.
        nan_at: number of the training clips' forward pass, from 1, that gives NaN; 0: none.
        signal_at: the one in which the process sends itself a signal; 0: none.
        signal_name: which one.
        signal_delay: seconds until it does; the training goes on meanwhile.
        rank: the process that has these troubles.
    """

    def __init__(
        self,
        num_classes: int,
        nan_at: int = 0,
        signal_at: int = 0,
        signal_name: str = "SIGTERM",
        signal_delay: float = 0.0,
        rank: int = 0,
    ) -> None:
        super().__init__(
            nn.Conv3d(3, 4, 3, 2),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(4, num_classes),
        )
        self.nan_at, self.signal_at, self.signal_delay = nan_at, signal_at, signal_delay
        self.signal = signal.Signals[signal_name]
        self.is_troubled = rank == int(os.environ.get("LOCAL_RANK", 0))
        self.num_passes = 0

    def forward(self, clips: Tensor) -> Tensor:
        self.num_passes += self.training
        if self.is_troubled and self.training:
            if self.num_passes == self.signal_at:
                if self.signal_delay:
                    timer = threading.Timer(self.signal_delay, os.kill, (os.getpid(), self.signal))
                    timer.daemon = True  # a process that has ended is not kept for it
                    timer.start()
                else:
                    os.kill(os.getpid(), self.signal)
            if self.num_passes == self.nan_at:
                clips = clips * float("nan")
        return super().forward(clips)
