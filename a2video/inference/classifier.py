"""From a trained network and a video to ranked labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from a2video.data.readers import ArrayReader, VideoReader, open_video
from a2video.data.transforms import Preprocessing
from a2video.data.views import View, draw_clips, even_views, read_clips, reading
from a2video.errors import InputError
from a2video.inference.backends import Backend, TorchBackend
from a2video.inference.loading import load
from a2video.inference.scoring import average_views

Files: TypeAlias = list[str] | list[Path] | tuple[str | Path, ...]
Ranked: TypeAlias = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ClipPrediction:
    """What a network makes of one clip of a video, the mean over its crops.

    Attributes:
        start_seconds: when the clip's first frame is shown, after the video's first one.
        end_seconds: when its last frame is no longer shown.
        ranked: (class name, probability) of every class, the most probable first.
    """

    start_seconds: float
    end_seconds: float
    ranked: Ranked


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one video.

    Attributes:
        path: the video; ArrayReader.NAME for frames in memory.
        ranked: (class name, probability) of every class, the most probable first.
        clips: the same of each clip that was scored, in the order of time.
    """

    path: str
    ranked: Ranked
    clips: tuple[ClipPrediction, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """Of the most probable class, in [0, 1]."""
        return self.ranked[0][1]


class VideoClassifier:
    """A trained network with everything needed to classify a video.

    Args:
        backend: uint8 clips -> logits.
        class_names: in the order of the logits.
        preprocessing: from video to clips, and which views to average.
    """

    def __init__(self, backend: Backend, class_names: Sequence[str], preprocessing: Preprocessing) -> None:
        self.backend = backend
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        network: nn.Module | None = None,
        backend: str = "auto",
        num_threads: int | None = None,
    ) -> VideoClassifier:
        """Loads a network, its classes and its preprocessing from a file, executing nothing in it.

        Args:
            path: a checkpoint that `a2video fit` wrote, or the .safetensors, .onnx or .xml file of `a2video export`.
            device: "auto" takes a GPU when there is one; otherwise any torch device, such as "cpu" or "cuda:1".
                Exported networks compute on the CPU, ONNX Runtime on "cuda" too.
            network: a network of your own, to take the checkpoint's weights; built by a2video when None.
            backend: "torch", "onnxruntime" or "openvino"; "auto" takes torch for checkpoints and .safetensors, ONNX
                Runtime for .onnx, OpenVINO for .xml. OpenVINO reads .onnx too.
            num_threads: of the CPU; torch.get_num_threads() when None, which is what OMP_NUM_THREADS says.

        Raises:
            InputError: the file is no such file, holds a network that a2video did not build, or does not fit the
                device or the backend, whose package may be missing.
        """
        return cls(*load(path, device, network, backend, num_threads))

    @property
    def network(self) -> nn.Module:
        """The torch network; one of a2video's has its batch norms within its convolutions, and is for inference only.

        Raises:
            AttributeError: another runtime computes the logits.
        """
        if not isinstance(self.backend, TorchBackend):
            raise AttributeError(f"{type(self.backend).__name__} has no torch network: load the checkpoint instead")
        return self.backend.network

    @overload
    def __call__(self, video: str | Path) -> Prediction: ...
    @overload
    def __call__(self, video: NDArray[np.uint8] | Tensor, fps: float) -> Prediction: ...
    @overload
    def __call__(self, video: Files) -> list[Prediction]: ...

    def __call__(
        self, video: str | Path | NDArray[np.uint8] | Tensor | Files, fps: float | None = None
    ) -> Prediction | list[Prediction]:
        """Classifies a video by the mean of its views' probabilities, as `a2video test` does.

        Args:
            video: a file; or frames, uint8 RGB (T, H, W, 3), upright; or several files.
            fps: frames in a second, where frames are given.

        Raises:
            VideoError: a video cannot be read.
            InputError: the frames are no frames, or their fps is missing.
        """
        if isinstance(video, str | Path):
            if fps is not None:
                raise InputError(f"fps is for frames in memory; {video} has its own: leave it out")
            with reading(video), open_video(video) as reader:
                return self.classify(reader)
        if isinstance(video, np.ndarray | Tensor):
            return self.classify(ArrayReader(video, fps))
        return [self(path) for path in video]

    def classify(self, video: VideoReader) -> Prediction:
        """Classifies an open video; see __call__."""
        sampler, transform = even_views(self.preprocessing)
        rng = np.random.default_rng(0)  # nothing here is random
        clips = draw_clips(video, sampler, rng)
        return self.predict(str(video.path), *read_clips(video, [clips], [transform], rng, timed=True))

    def predict(self, path: str, pixels: Tensor, views: Sequence[View]) -> Prediction:
        """What becomes of timed views uint8 (V, 3, T, H, W) of a video, in the order of its clips."""
        logits = self.score(pixels)
        clips = []
        for same in torch.split(torch.arange(len(views)), self.preprocessing.num_crops):
            seconds = views[int(same[0])].seconds
            assert seconds is not None
            clips.append(ClipPrediction(*seconds, self.rank(average_views(logits[same], "probs"))))
        return Prediction(path, self.rank(average_views(logits, "probs")), tuple(clips))

    def score(self, clips: Tensor) -> Tensor:
        """Logits float32 (N, num_classes) of uint8 clips (N, 3, T, H, W).

        Raises:
            InputError: the network gives something that is no number.
        """
        logits = self.backend(clips)
        if not bool(logits.isfinite().all()):
            raise InputError("the network's logits are not finite: its weights are damaged, or were trained to be so")
        return logits

    def rank(self, probs: Tensor) -> Ranked:
        """(class name, probability) from probabilities (K,), the most probable first."""
        order = torch.argsort(probs, descending=True, stable=True).tolist()
        return tuple((self.class_names[i], float(probs[i])) for i in order)
