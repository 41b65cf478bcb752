from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from a2video.data import protocols
from a2video.data.samplers import (
    ClipSampler,
    ConsecutiveClips,
    EvenGaps,
    RandomClips,
    SegmentFrames,
    UniformClips,
    frames_at_rate,
    span,
)


def draw(sampler: ClipSampler, num_available: int, seed: int = 0, fps: float | None = None) -> list[list[int]]:
    times = None if fps is None else np.arange(num_available) / fps
    return sampler(num_available, np.random.default_rng(seed), times).tolist()


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


@pytest.mark.parametrize(
    ("num_available", "short", "expected"),
    [
        (5, "loop", [0, 2, 4, 1]),
        (5, "repeat_last", [0, 2, 4, 4]),
        (2, "loop", [0, 0, 0, 0]),
        (2, "repeat_last", [0, 1, 1, 1]),
        (1, "repeat_last", [0, 0, 0, 0]),
        (7, "repeat_last", [0, 2, 4, 6]),
        (7, "error", [0, 2, 4, 6]),
    ],
)
def test_short_videos(num_available: int, short: str, expected: list[int]) -> None:
    for sampler in (UniformClips(4, 2, short=short), RandomClips(4, 2, short=short)):
        assert draw(sampler, num_available) == [expected]
    assert draw(ConsecutiveClips(4, 2, short=short), num_available) == [expected]
    assert draw(UniformClips(4, 2, 3, short=short), num_available) == [expected] * 3


@pytest.mark.parametrize("sampler", [UniformClips(4, 2, short="error"), RandomClips(4, [2, 2], short="error")])
def test_short_video_refused(sampler: ClipSampler) -> None:
    with pytest.raises(ValueError, match="has 6 frames, but a clip of 4 needs 7: take shorter clips"):
        draw(sampler, 6)


def test_a_video_can_be_too_short_at_the_target_rate() -> None:
    sampler = UniformClips(4, 2, target_fps=15, short="error")
    assert draw(sampler, 14, fps=30) == [[0, 4, 8, 12]]
    with pytest.raises(ValueError, match="has 6 frames at 15 frames a second, but a clip of 4 needs 7"):
        draw(sampler, 12, fps=30)
    with pytest.raises(ValueError, match="target_fps needs the times of all 12 frames, got none"):
        draw(sampler, 12)
    assert draw(RandomClips(4, 2, target_fps=15), 12, fps=30) == [[0, 4, 8, 0]]
    assert draw(UniformClips(4, 2, target_fps=15, short="repeat_last"), 12, fps=30) == [[0, 4, 8, 10]]


@pytest.mark.parametrize(
    ("times", "target_fps", "expected"),
    [
        (np.arange(6) / 30, 30, [0, 1, 2, 3, 4, 5]),
        (np.arange(9) / 60, 30, [0, 2, 4, 6, 8]),  # down
        (np.arange(6) / 15, 30, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),  # up
        (np.arange(5) / 25, 30, [0, 0, 1, 2, 3, 4]),
        (np.arange(6) / 30, 25, [0, 1, 2, 3, 4]),
        (np.arange(6) / 24, 10, [0, 2, 4]),
        (np.arange(6) * 1001 / 30000, 30, [0, 1, 2, 3, 4, 5]),
        (np.round(np.arange(6) / 60, 3), 30, [0, 2, 4]),  # in whole milliseconds, as Matroska keeps them
        (np.round(np.arange(7) / 30, 3), 30, [0, 1, 2, 3, 4, 5, 6]),
        ([0, 0.1, 0.2, 1.0, 1.1], 10, [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 4, 4]),  # by its times, not its mean rate
        ([0, 0.5, 0.52, 0.54, 0.56], 4, [0, 0, 1]),
        ([0.0], 30, [0]),
        ([0.0, 0.01], 1, [0]),
    ],
)
def test_frames_at_rate(times: list[float], target_fps: float, expected: list[int]) -> None:
    assert frames_at_rate(np.array(times), target_fps).tolist() == expected


def test_29_97_at_30_repeats_a_frame_now_and_then() -> None:
    frames = frames_at_rate(np.arange(300) * 1001 / 30000, 30)  # 10.01 seconds
    assert len(frames) == 301
    assert np.flatnonzero(np.diff(frames) == 0).tolist() == [30]
    assert set(frames.tolist()) == set(range(300))


def test_clips_at_a_target_rate_are_source_frames() -> None:
    assert draw(UniformClips(4, 2, 2, target_fps=15), 40, fps=30) == [[0, 4, 8, 12], [26, 30, 34, 38]]
    assert draw(UniformClips(3, 1, target_fps=60), 4, fps=30) == [[1, 1, 2]]
    assert draw(SegmentFrames(4, random=False, target_fps=10), 30, fps=30) == [[3, 9, 18, 24]]
    assert draw(UniformClips(2, 1, target_fps=10), 1, fps=30) == [[0, 0]]


def test_several_strides_to_draw_from() -> None:
    sampler = RandomClips(3, [1, 2, 2], num_clips=2)
    clips = np.array([draw(sampler, 5, seed) for seed in range(1000)]).reshape(-1, 3)
    found, counts = np.unique(clips, axis=0, return_counts=True)
    assert found.tolist() == [[0, 1, 2], [0, 2, 4], [1, 2, 3], [2, 3, 4]]
    assert np.abs(counts / len(clips) - [1 / 9, 2 / 3, 1 / 9, 1 / 9]).max() < 0.04  # standard deviation 0.011
    with pytest.raises(ValueError, match="frame_stride is empty"):
        RandomClips(3, [])


def test_one_stride_draws_as_it_always_has() -> None:
    """Published results depend on it. Made with numpy 2.4: default_rng(7).integers(0, 96, size=4, endpoint=True)."""
    assert draw(RandomClips(2, 3, num_clips=4), 100, seed=7) == [[91, 94], [60, 63], [66, 69], [87, 90]]


@pytest.mark.parametrize(
    ("num_available", "step", "starts"),
    [
        (20, None, [0, 7, 13]),  # the last one moved back
        (14, None, [0, 7]),  # exact fit
        (15, None, [0, 7, 8]),
        (20, 4, [0, 4, 8, 12, 13]),
        (20, 100, [0, 13]),
        (7, None, [0]),
        (3, None, [0]),
        (1, None, [0]),
    ],
)
def test_consecutive_clips(num_available: int, step: int | None, starts: list[int]) -> None:
    sampler = ConsecutiveClips(4, 2, step)
    assert sampler.num_clips is None
    assert draw(sampler, num_available) == [[(s + 2 * t) % num_available for t in range(4)] for s in starts]


@pytest.mark.parametrize(
    ("num_available", "expected"),
    [(10, [1, 3, 6, 8]), (8, [1, 3, 5, 7]), (4, [0, 1, 2, 3]), (5, [0, 1, 3, 4]), (2, [0, 1, 0, 1]), (1, [0] * 4)],
)
def test_segment_middles(num_available: int, expected: list[int]) -> None:
    assert draw(SegmentFrames(4, random=False), num_available) == [expected]


def test_segment_frames() -> None:
    drawn = np.array([draw(SegmentFrames(4, random=True), 10, seed)[0] for seed in range(1000)])
    parts = [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    for part, column in zip(parts, drawn.T, strict=True):
        found, counts = np.unique(column, return_counts=True)
        assert found.tolist() == part
        assert counts.min() > 1000 / len(part) - 70
    assert draw(SegmentFrames(4, random=True), 4) == [[0, 1, 2, 3]]
    assert draw(SegmentFrames(4, random=True, short="repeat_last"), 2) == [[0, 1, 1, 1]]
    with pytest.raises(ValueError, match="has 3 frames, but a clip of 4 needs 4"):
        draw(SegmentFrames(4, random=True, short="error"), 3)


@pytest.mark.parametrize(
    ("num_available", "num_clips", "starts"),
    [
        (300, 1, [122]),  # 243 free frames, rounded up
        (300, 2, [62, 181]),
        (114, 2, [0, 57]),  # exact fit
        (300, 10, [0, 27, 54, 81, 108, 135, 162, 189, 216, 243]),  # they overlap
        (600, 10, [3, 63, 123, 182, 242, 302, 362, 421, 481, 541]),
        (20, 2, [0, 0]),
    ],
)
def test_even_gaps(num_available: int, num_clips: int, starts: list[int]) -> None:
    assert [clip[0] for clip in draw(EvenGaps(8, 8, num_clips), num_available)] == starts


def test_protocols_of_the_first_author() -> None:
    clips = np.array([draw(protocols.mfnet_kinetics_train(), 300, seed)[0] for seed in range(800)])
    assert clips.shape == (800, 16)
    strides, counts = np.unique(np.diff(clips, axis=1), return_counts=True)
    assert strides.tolist() == [1, 2, 3]
    assert np.abs(counts / counts.sum() - [0.25, 0.5, 0.25]).max() < 0.06
    for preset, num_clips in (
        (protocols.mfnet_ucf_train, 1), (protocols.mfnet_val, 1), (protocols.mfnet_ucf_test, 40)
    ):  # fmt: skip
        drawn = np.array(draw(preset(), 100))
        assert drawn.shape == (num_clips, 16)
        assert set(np.diff(drawn, axis=1).flat) == {2}
    assert set(np.diff(draw(protocols.glore_train(), 300)[0])) == {8}
    assert draw(protocols.glore_clip_test(), 300) == [[122, 130, 138, 146, 154, 162, 170, 178]]
    assert [clip[-1] for clip in draw(protocols.glore_video_test(), 300)][::9] == [56, 299]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomClips(0, 1), "expected num_frames >= 1 and num_clips >= 1, got 0 and 1"),
        (lambda: UniformClips(4, 1, 0), "expected num_frames >= 1 and num_clips >= 1, got 4 and 0"),
        (lambda: UniformClips(4, -1), "expected frame_stride >= 0, got -1"),
        (lambda: RandomClips(4, [1, -1]), "expected frame_stride >= 0, got -1"),
        (lambda: ConsecutiveClips(4, 1, 0), "expected step >= 1, got 0"),
        (lambda: UniformClips(4, 1, target_fps=0), "expected target_fps > 0, got 0"),
        (lambda: SegmentFrames(0, random=True), "expected num_frames >= 1"),
    ],
)
def test_wrong_numbers(make: Callable[[], ClipSampler], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
