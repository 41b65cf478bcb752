"""The clip sampling of the first author's public training and testing code, as samplers.

Sources: MFNet is cypw/PyTorch-MFNet (data/video_sampler.py, train_kinetics.py, train_ucf101.py, test/), GloRe is
facebookresearch/GloRe (the same files). Frames are counted as they are in both, at any rate.

Everywhere ours differs in this: a video shorter than a clip goes on from its beginning at the clip's own stride, where
MFNet repeats a single frame and GloRe forgets the stride; draws come from the given generator, where theirs are alike
in all workers; and every start is equally likely in training, the last one that fits too, which theirs never draw.
"""

from __future__ import annotations

from a2video.data.samplers import ClipSampler, EvenGaps, RandomClips


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
