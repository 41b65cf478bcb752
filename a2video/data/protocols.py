"""Which views of a video a test scores, and the clip sampling of the first author's public code.

Sources: MFNet is cypw/PyTorch-MFNet (data/video_sampler.py, train_kinetics.py, train_ucf101.py, test/), GloRe is
facebookresearch/GloRe (the same files). Frames are counted as they are in both, at any rate.

Everywhere ours differs in this: a video shorter than a clip goes on from its beginning at the clip's own stride, where
MFNet repeats a single frame and GloRe forgets the stride; draws come from the given generator, where theirs are alike
in all workers; and every start and every crop is equally likely, the last one that fits too: neither of theirs draws
the last start, nor MFNet the last crop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from a2video.data.samplers import ClipSampler, ConsecutiveClips, EvenGaps, RandomClips, UniformClips
from a2video.data.transforms import EvenCrops, Preprocessing, RandomCrops, Transform
from a2video.data.views import Centre, even_views
from a2video.errors import InputError

Average: TypeAlias = Literal["probs", "logits"]


class Protocol:
    """Which views of each video a test scores, and how they become the video's prediction.

    Beside them it lets the one centre view be scored (the centre clip, the centre crop of the aspect-true resize, as
    in validation), where that is none of its own: so that the number it gives alone is always known.

    Args:
        trained: the preprocessing that the network was trained with.
        views: what they are, in words, such as "10 clips x 3 crops".
        sampler: chooses the frames.
        frame_stride: of its clips.
        transform: resizes and crops them.
        average: how a video's probabilities come from its views: "probs" is the mean of their probabilities, "logits"
            the probabilities of their mean logits.
        centre_view: which of the views is the one centre view; None if none is.

    Attributes:
        name: all of this in one line, printed beside each number.
        centre: what chooses and crops the extra centre view; None where there is none.
        centre_view: the place of the one centre view among an item's views, -1 where it is extra; None where it is not
            scored, because the protocol's clips have another number of frames.
        num_views: views of each video, the extra one counted; None where that depends on the video.
    """

    def __init__(
        self,
        trained: Preprocessing,
        views: str,
        sampler: ClipSampler,
        frame_stride: int,
        transform: Transform,
        average: Average = "probs",
        centre_view: int | None = None,
    ) -> None:
        tested = replace(
            trained,
            num_frames=sampler.num_frames,
            frame_stride=frame_stride,
            target_fps=sampler.target_fps,
            short=sampler.short,
        )
        side = trained.short_side
        size = f"squashed to {side} x {side}" if transform.squash else f"short side {side}"
        mean = "probabilities" if average == "probs" else "logits"
        training = "" if tested == trained else f" (the network was trained on {_clips(trained)})"
        self.name = f"{views} of {_clips(tested)}, {size}, crop {trained.crop_size}, mean of {mean}{training}"
        self.sampler = sampler
        self.transform = transform
        self.average: Average = average
        self.centre: Centre | None = None
        self.centre_view = centre_view
        if centre_view is None and tested.num_frames == trained.num_frames:
            self.centre = even_views(trained.one_view)
            self.centre_view = -1
        num_clips = sampler.num_clips
        self.num_views = None if num_clips is None else num_clips * transform.num_crops + self.has_extra_centre

    @property
    def has_extra_centre(self) -> bool:
        """Whether the last of an item's views is the one centre view and none of the protocol's own."""
        return self.centre is not None


def _clips(p: Preprocessing) -> str:
    rate = "" if p.target_fps is None else f" at {p.target_fps:g} frames a second"
    short = "" if p.short == "loop" else f", short videos: {p.short}"
    return f"{p.num_frames} frames, stride {p.frame_stride}{rate}{short}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


class Uniform(Protocol):
    """Clips spread evenly over the video, each cut to its centre or to three squares along the longer side.

    Args:
        preprocessing: of the network.
        num_clips: of each video.
        num_crops: 1 or 3 of each clip.
        squash: resize to a square of short_side whatever the aspect; the aspect is kept when False.
        average: see Protocol.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        num_clips: int = 10,
        num_crops: int = 3,
        squash: bool = False,
        average: Average = "probs",
    ) -> None:
        p = preprocessing
        super().__init__(
            p,
            f"{_count(num_clips, 'clip')} x {_count(num_crops, 'crop')}",
            UniformClips(p.num_frames, p.frame_stride, num_clips, p.target_fps, p.short),
            p.frame_stride,
            EvenCrops(p.short_side, p.crop_size, num_crops, squash),
            average,
            None if squash or num_clips % 2 == 0 else num_clips * num_crops // 2,  # the middle one of an odd number
        )


class Uniform10x3(Uniform):
    """10 clips x 3 crops."""

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        super().__init__(preprocessing, 10, 3, average=average)


class Uniform4x3(Uniform):
    """4 clips x 3 crops."""

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        super().__init__(preprocessing, 4, 3, average=average)


class Uniform5x1(Uniform):
    """5 clips x 1 crop."""

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        super().__init__(preprocessing, 5, 1, average=average)


class OneCentreClip(Uniform):
    """The one centre view alone, as in validation."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing, 1, 1)


class OfPreprocessing(Uniform):
    """The num_clips and num_crops of the network's preprocessing: what inference does too."""

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        super().__init__(preprocessing, preprocessing.num_clips, preprocessing.num_crops, average=average)


class Dense(Protocol):
    """Windows over the whole video, its last frame always among them; how many depends on its length.

    All views of a video are in memory at once.

    Args:
        preprocessing: of the network.
        window_stride: source frames from one window's first to the next one's; a clip's span when None, so that none
            overlap.
        num_crops: 1 or 3 of each window.
        average: see Protocol.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        window_stride: int | None = None,
        num_crops: int = 1,
        average: Average = "probs",
    ) -> None:
        p = preprocessing
        if window_stride is not None and window_stride < 1:
            raise InputError(f"window_stride must be at least 1, got {window_stride}")
        sampler = ConsecutiveClips(p.num_frames, p.frame_stride, window_stride, p.target_fps, p.short)
        views = f"windows every {_count(sampler.step, 'frame')} x {_count(num_crops, 'crop')}"
        super().__init__(p, views, sampler, p.frame_stride, EvenCrops(p.short_side, p.crop_size, num_crops), average)


class MfnetUcf101(Protocol):
    """MFNet's video level on UCF-101 (test/evaluate_video_ucf101_split1.py, issue 4): 40 random clips of 16 frames.

    Each has a random crop of its own, of frames squashed to a square; theirs is of 256 pixels with crops of 224, ours
    has the network's.
    """

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        p = preprocessing
        crops = RandomCrops(p.short_side, p.crop_size, squash=True)
        super().__init__(p, "MFNet's 40 random clips x 1 random crop", mfnet_ucf_test(), 2, crops, average)


class GloreKinetics(Protocol):
    """GloRe's video level on Kinetics (issue 4): 10 clips of 8 frames, 5 crops of each.

    Of the 50 views one has the centre crop, the others random ones. They sum probabilities.
    """

    def __init__(self, preprocessing: Preprocessing, average: Average = "probs") -> None:
        p = preprocessing
        crops = RandomCrops(p.short_side, p.crop_size, 5, centre_first=True)
        views = "GloRe's 10 clips x 5 crops (1 centre, 49 random)"
        super().__init__(p, views, glore_video_test(), 8, crops, average)


class GloreKineticsClip(Protocol):
    """GloRe's clip level on Kinetics (test/test-single-clip.py): the centre crop of one clip of 8 frames."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        p = preprocessing
        super().__init__(p, "GloRe's 1 clip x 1 crop", glore_clip_test(), 8, EvenCrops(p.short_side, p.crop_size))


def mfnet_kinetics_train() -> ClipSampler:
    """MFNet on Kinetics: 16 frames, their interval drawn for each clip from 1, 2, 2, 3 (train_kinetics.py)."""
    return RandomClips(16, (1, 2, 2, 3))


def mfnet_ucf_train() -> ClipSampler:
    """MFNet on UCF-101 and HMDB-51: 16 frames, interval 2 (train_ucf101.py)."""
    return RandomClips(16, 2)


def mfnet_val() -> ClipSampler:
    """MFNet on all three: one clip of 16 frames, interval 2, that stays the same for a video (train_*.py).

    Theirs is a random one of the windows 0-30, 31-61, ...; ours may start anywhere. It stays the same because an
    unshuffled VideoDataset always draws from (seed, 0, video).
    """
    return RandomClips(16, 2)


def mfnet_ucf_test() -> ClipSampler:
    """MFNet's video level on UCF-101: the mean of 40 random clips (test/evaluate_video_ucf101_split1.py, issue 4).

    Theirs goes through the list 40 times; ours takes all 40 clips from one pass over each video.
    """
    return RandomClips(16, 2, num_clips=40)


def glore_train() -> ClipSampler:
    """GloRe on Kinetics: 8 frames, interval 8 (train_kinetics.py)."""
    return RandomClips(8, 8)


def glore_clip_test() -> ClipSampler:
    """GloRe's clip level on Kinetics: the centre clip, from frame ceil((R - 57) / 2) of R (test/test-single-clip.py).

    UniformClips rounds down instead.
    """
    return EvenGaps(8, 8)


def glore_video_test() -> ClipSampler:
    """GloRe's video level on Kinetics: 10 clips (GloRe issue 4; the 5 crops of each are spatial).

    They reach both ends of a video up to 570 frames, and leave equal gaps before and after them in a longer one.
    """
    return EvenGaps(8, 8, num_clips=10)
