"""A backend that knows colours: what a network would make of a scene is then known exactly."""

from __future__ import annotations

from torch import Tensor

from a2video.data.transforms import Preprocessing
from a2video.inference.backends import Backend
from a2video.inference.classifier import VideoClassifier

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
P = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16, num_clips=3, num_crops=1)  # span 7


class Colours(Backend):
    """Logits are the mean red, green and blue of a clip, times `scale`."""

    def __init__(self, scale: float = 10.0) -> None:
        self.scale = scale
        self.num_clips: list[int] = []  # of each call

    def __call__(self, clips: Tensor) -> Tensor:
        """See Backend."""
        self.num_clips.append(len(clips))
        return clips.float().mean((2, 3, 4)) / 255 * self.scale


def colour_classifier(preprocessing: Preprocessing = P) -> VideoClassifier:
    """A classifier of red, green and blue videos."""
    return VideoClassifier(Colours(), tuple(COLOURS), preprocessing)
