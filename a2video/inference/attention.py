"""Where a network's double attention blocks collect from in a clip, and whom they hand it to, read from the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from a2video.data.readers import VideoReader, open_video
from a2video.data.samplers import TIME_TOLERANCE, IntArray, Short, UniformClips, frames_at_rate
from a2video.data.transforms import Preprocessing
from a2video.data.views import draw_clips, even_views, read_clips, reading
from a2video.errors import InputError
from a2video.inference.classifier import ClipPrediction, Prediction, VideoClassifier
from a2video.models import DoubleAttention


@dataclass(frozen=True)
class BlockAttention:
    """What a double attention block did with one clip.

    Attributes:
        name: of the block in the network.
        gather: softmax_L(θ(X)) float32 (c_n, T', H', W'): how much of each descriptor comes from each position. Sums
            to one over all positions; over those of each frame where an image network took the clip frame by frame.
        distribute: softmax_n(ρ(X)) float32 (c_n, T', H', W'): how much of what a position receives is of each
            descriptor. Sums to one over descriptors.
    """

    name: str
    gather: Tensor
    distribute: Tensor

    @property
    def usage(self) -> Tensor:
        """The share (c_n,) that each descriptor has in what positions receive, the mean over them; sums to one."""
        return self.distribute.flatten(1).mean(1)


@dataclass(frozen=True)
class Attention:
    """What the double attention blocks of a network did with one clip of a video.

    Attributes:
        path: the video.
        clip: what the network saw of it, uint8 RGB (3, T, H, W), not yet normalised.
        seconds: when each of its frames is shown, after the video's first one (T,).
        of_clip: what the network makes of that clip.
        of_video: what it makes of the video, by all the views that inference takes.
        blocks: in the order in which they ran; one that ran more than once is there for each time.
    """

    path: str
    clip: Tensor
    seconds: tuple[float, ...]
    of_clip: ClipPrediction
    of_video: Prediction
    blocks: tuple[BlockAttention, ...]


def attention(classifier: VideoClassifier, path: str | Path, at_seconds: float | None = None) -> Attention:
    """Classifies a video and looks at the double attention blocks while they work on one clip of it.

    Args:
        classifier: with a torch network that has double attention blocks.
        path: the video, or the picture.
        at_seconds: the middle of the clip, or as near to it as the video's ends allow; the centre clip when None.

    Raises:
        InputError: the network has no such block, is none of torch's, or the video is over by then.
        VideoError: the video cannot be read.
    """
    network = _network_to_watch(classifier)
    rng = np.random.default_rng(0)  # nothing here is random
    with reading(path), open_video(path) as video:
        sampler, transform = even_views(classifier.preprocessing.one_view)
        if at_seconds is not None:
            sampler = clip_around(video, classifier.preprocessing, at_seconds)
        frames = draw_clips(video, sampler, rng)
        pixels, views = read_clips(video, [frames], [transform], rng, timed=True)  # (1, 3, T, H, W)
        with watched_blocks(network) as blocks:
            of_view = classifier.predict(str(path), pixels, views)
        is_all = at_seconds is None and classifier.preprocessing.num_views == 1
        return Attention(
            str(path),
            pixels[0],
            tuple(float(video.times[frame]) for frame in frames[0]),
            of_view.clips[0],
            of_view if is_all else classifier.classify(video),
            tuple(blocks),
        )


def _network_to_watch(classifier: VideoClassifier) -> nn.Module:
    try:
        network = classifier.network
    except AttributeError:
        raise InputError(
            f"attention is read from a torch network, and this one runs in {type(classifier.backend).__name__}: give "
            "the checkpoint that it was exported from"
        ) from None
    if not any(isinstance(module, DoubleAttention) for module in network.modules()):
        name = getattr(network, "description", {}).get("builder", type(network).__name__)
        raise InputError(
            f"the network ({name}) has no double attention block to look at: give one that has, as a2net_resnet50"
        )
    return network


@contextmanager
def watched_blocks(network: nn.Module) -> Iterator[list[BlockAttention]]:
    """Watches the double attention blocks of a network while it works on one clip; the list it yields fills up.

    Raises:
        InputError: a block gets more than one clip.
    """
    seen: list[BlockAttention] = []
    handles = []
    try:
        for name, block in network.named_modules():
            if isinstance(block, DoubleAttention):
                watch = _Watch(name, block.dims, seen)
                handles += [
                    block.theta.register_forward_hook(watch.take_gather),
                    block.rho.register_forward_hook(watch.take_distribute),
                    block.register_forward_hook(watch.finish),
                ]
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    """Forward hooks of one block."""

    def __init__(self, name: str, dims: int, seen: list[BlockAttention]) -> None:
        self.name, self.dims, self.seen = name, dims, seen
        self.num_passes = 0

    def take_gather(self, module: nn.Module, inputs: object, scores: Tensor) -> None:
        """Of θ(X) (B, c_n, *positions)."""
        over_positions = scores.detach().float().flatten(2).softmax(2)
        self.gather = self._maps(over_positions.view(scores.shape))

    def take_distribute(self, module: nn.Module, inputs: object, scores: Tensor) -> None:
        """Of ρ(X) (B, c_n, *positions)."""
        self.distribute = self._maps(scores.detach().float().softmax(1))

    def finish(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """The block has both."""
        self.num_passes += 1
        name = self.name if self.num_passes == 1 else f"{self.name} (pass {self.num_passes})"
        self.seen.append(BlockAttention(name, self.gather, self.distribute))

    def _maps(self, weights: Tensor) -> Tensor:
        """(B, c_n, *positions) -> (c_n, T', H', W') on the CPU."""
        weights = weights.cpu()
        if self.dims == 2:
            return weights.transpose(0, 1)  # the frames of a clip are the samples of a network for images
        if len(weights) != 1:
            raise InputError(f"block {self.name!r} got {len(weights)} clips made of one, which are no clip's maps")
        return weights[0] if self.dims == 3 else weights[0, :, :, None, None]


class ClipAround(UniformClips):
    """One clip around a frame, moved as far as it must be to fit into the video.

    Of 100 frames, clips of span 57 around frame 50 start at [22], around frame 10 at [0].

    Args:
        middle: frame, from 0; with `target_fps` one of those that are seen.
        num_frames: see UniformClips.
        frame_stride: see UniformClips.
        target_fps: see ClipSampler.
        short: see ClipSampler.
    """

    def __init__(
        self, middle: int, num_frames: int, frame_stride: int, target_fps: float | None, short: Short = "loop"
    ) -> None:
        super().__init__(num_frames, frame_stride, 1, target_fps, short)
        self.middle = middle

    def _starts(self, num_available: int, span: int) -> IntArray:
        return np.array([max(min(self.middle - span // 2, num_available - span), 0)], dtype=np.int64)


def clip_around(video: VideoReader, preprocessing: Preprocessing, seconds: float) -> ClipAround:
    """Chooses the clip around what is shown at a moment.

    Raises:
        InputError: the video does not last so long, or it is no moment.
    """
    p, times = preprocessing, video.times
    length = float(times[-1]) + (1 / video.fps if video.fps else 0.0)
    if not 0 <= seconds <= length:
        raise InputError(f"{video.path} lasts {length:.2f} seconds: choose a moment from 0 to that, not {seconds:g}")
    seen = times if p.target_fps is None else times[frames_at_rate(times, p.target_fps)]
    middle = max(int(np.searchsorted(seen, seconds + TIME_TOLERANCE, side="right")) - 1, 0)
    return ClipAround(middle, p.num_frames, p.frame_stride, p.target_fps, p.short)
