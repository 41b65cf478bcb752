"""A²-Nets for video action recognition.

The public names load on first use, so that `import a2video` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2video.data.readers import VideoError, open_video
    from a2video.data.transforms import Preprocessing
    from a2video.datamodule import VideoDataModule
    from a2video.errors import InputError
    from a2video.inference.classifier import Prediction, VideoClassifier
    from a2video.models import DoubleAttention
    from a2video.recognizer import Recognizer

__version__ = "0.1.0"

_HOMES = {
    "DoubleAttention": "a2video.models",
    "InputError": "a2video.errors",
    "Prediction": "a2video.inference.classifier",
    "Preprocessing": "a2video.data.transforms",
    "Recognizer": "a2video.recognizer",
    "VideoClassifier": "a2video.inference.classifier",
    "VideoDataModule": "a2video.datamodule",
    "VideoError": "a2video.data.readers",
    "open_video": "a2video.data.readers",
}

__all__ = [  # noqa: RUF022 (the order a reader meets them in)
    "DoubleAttention",
    "open_video",
    "VideoDataModule",
    "Preprocessing",
    "Recognizer",
    "VideoClassifier",
    "Prediction",
    "InputError",
    "VideoError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'a2video' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
