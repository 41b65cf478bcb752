from __future__ import annotations

import numpy as np
import pytest

from a2video.data.samplers import ClipSampler, RandomClips, UniformClips, span


def draw(sampler: ClipSampler, num_available: int, seed: int = 0) -> list[list[int]]:
    return sampler(num_available, np.random.default_rng(seed)).tolist()


def test_span() -> None:
    assert span(8, 8) == 57
    assert span(16, 2) == 31
    assert span(8, 0) == 1


@pytest.mark.parametrize(
    ("num_available", "num_clips", "expected"),
    [
        (20, 1, [[6, 8, 10, 12]]),  # free frames 13: the centre clip starts at 6
        (20, 2, [[0, 2, 4, 6], [13, 15, 17, 19]]),  # the ends of the video are reached
        (20, 3, [[0, 2, 4, 6], [6, 8, 10, 12], [13, 15, 17, 19]]),
        (7, 2, [[0, 2, 4, 6], [0, 2, 4, 6]]),  # exactly one clip fits
        (5, 1, [[0, 2, 4, 1]]),  # too short: goes on from the beginning
        (1, 2, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_uniform_clips(num_available: int, num_clips: int, expected: list[list[int]]) -> None:
    assert draw(UniformClips(4, 2, num_clips), num_available) == expected


def test_random_clips_start_anywhere_they_fit_equally_often() -> None:
    sampler = RandomClips(3, 2)
    clips = [draw(sampler, 8, seed)[0] for seed in range(2000)]
    assert all(clip == [clip[0], clip[0] + 2, clip[0] + 4] for clip in clips)
    counts = np.bincount([clip[0] for clip in clips], minlength=4)
    assert len(counts) == 4
    assert counts.min() > 430  # 500 expected, standard deviation 19


def test_random_clips_use_only_the_given_generator() -> None:
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    sampler = RandomClips(3, 2, num_clips=5)
    assert draw(sampler, 100, seed=4) == draw(sampler, 100, seed=4) != draw(sampler, 100, seed=5)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.parametrize("sampler", [RandomClips(4, 0), UniformClips(4, 0, 3)])
def test_stride_zero_repeats_one_frame(sampler: ClipSampler) -> None:
    clips = draw(sampler, 30)
    assert all(len(set(clip)) == 1 for clip in clips)


@pytest.mark.parametrize("arguments", [(0, 1), (4, -1), (4, 1, 0)])
def test_wrong_numbers(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected num_frames >= 1"):
        RandomClips(*arguments)
