"""The ring buffer keeps what a file's sampler would take, whatever comes, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from a2video.data.samplers import frames_at_rate
from a2video.data.transforms import Preprocessing
from a2video.inference.live_frames import FrameRing, Lag, RateMeter


def ring(num_frames: int, frame_stride: int, fps: float, target_fps: float | None = None) -> FrameRing:
    return FrameRing(Preprocessing(num_frames=num_frames, frame_stride=frame_stride, target_fps=target_fps), fps)


def numbers(ring: FrameRing) -> list[int]:
    """Of the frames in the newest clip."""
    return [int(image) for image in ring.clip()]


def fill(ring: FrameRing, times: object) -> None:
    for number, seconds in enumerate(np.asarray(times).tolist()):
        ring.put(torch.tensor(number), 100 + seconds)


def test_a_clip_is_the_newest_frames_at_its_stride() -> None:
    frames = ring(4, 2, 25)
    fill(frames, np.arange(6) / 25)
    assert not frames.is_full
    fill(frames := ring(4, 2, 25), np.arange(20) / 25)
    assert frames.is_full
    assert numbers(frames) == [13, 15, 17, 19]
    assert frames.num_dropped == 13  # 0 ... 12, for no clip was taken before


def test_a_stride_of_zero_repeats_the_newest_frame() -> None:
    frames = ring(3, 0, 25)
    fill(frames, np.arange(5) / 25)
    assert numbers(frames) == [4, 4, 4]


@pytest.mark.parametrize("source_fps", [10, 24, 25, 30000 / 1001, 60, 240])
def test_another_rate_gives_the_frames_that_it_would_give_in_a_file(source_fps: float) -> None:
    times = np.arange(int(2 * source_fps)) / source_fps
    frames = ring(30, 1, 25, target_fps=25)
    fill(frames, times)
    expected = frames_at_rate(times, 25)
    newest = math.ceil((times[-1] - 0.00101) * 25)  # the tick that the last frame is the newest for, so far
    assert numbers(frames) == [*expected[newest - 29 : newest], len(times) - 1]


def test_a_slower_stream_repeats_frames_and_a_faster_one_leaves_some_out() -> None:
    fill(slow := ring(6, 1, 30, target_fps=30), np.arange(20) / 15)
    assert numbers(slow) == [16, 17, 17, 18, 18, 19]
    fill(fast := ring(4, 1, 25, target_fps=25), np.arange(101) / 100)
    assert numbers(fast) == [88, 92, 96, 100]


def test_times_may_tremble_when_the_rate_is_the_streams_own() -> None:
    tremble = 0.012 * np.sin(np.arange(60))
    fill(frames := ring(8, 4, 25), np.arange(60) / 25 + tremble)
    assert numbers(frames) == [31, 35, 39, 43, 47, 51, 55, 59]


def test_a_lost_frame_is_replaced_by_the_one_before_it() -> None:
    frames = ring(4, 1, 25)
    for number in (0, 1, 2, 3, 5, 6):
        frames.put(torch.tensor(number), number / 25)
    assert numbers(frames) == [3, 3, 5, 6]


@pytest.mark.parametrize("later", [99.0, 105.0])
def test_no_clip_spans_a_gap_or_a_step_back(later: float) -> None:
    frames = ring(4, 1, 25)
    fill(frames, np.arange(6) / 25)
    frames.clip()
    for number in range(4):
        frames.put(torch.tensor(50 + number), later + number / 25)
        assert frames.is_full == (number == 3)
    assert numbers(frames) == [50, 51, 52, 53]


def test_dropped_are_frames_that_no_clip_has_spanned() -> None:
    frames = ring(3, 1, 10)
    for number in range(30):
        frames.put(torch.tensor(number), number / 10)
        if number % 5 == 4:
            frames.clip()
    assert frames.num_dropped == 12  # 2 of each 5
    frames.put(torch.tensor(30), 3.0)
    frames.clear()
    assert frames.num_dropped == 13


def rate_of(times: object, stated: float | None) -> float | None:
    meter = RateMeter(stated)
    for seconds in np.asarray(times).tolist():
        meter.add(seconds)
    return meter.fps


def test_the_rate_is_measured_over_a_second() -> None:
    assert rate_of(np.arange(25) / 25, None) is None
    assert rate_of(np.arange(26) / 25, None) == pytest.approx(25)
    assert rate_of(np.arange(5), None) == pytest.approx(1)
    assert rate_of([5.0, 5.04, *np.arange(26) / 25], None) == pytest.approx(25)


def test_the_rate_is_measured_without_gaps() -> None:
    meter = RateMeter(None)
    for n in range(10):
        meter.add(n / 50)
    for n in range(51):
        assert meter.fps is None
        meter.add(3 + n / 50, is_after_gap=n == 0)
    assert meter.fps == pytest.approx(50)


@pytest.mark.parametrize(("stated", "expected"), [(30.0, 30.0), (1000.0, 30.3), (15.0, 30.3), (None, 30.3)])
def test_a_stated_rate_is_taken_when_it_is_about_right(stated: float | None, expected: float) -> None:
    assert rate_of(np.arange(40) * 0.033, stated) == pytest.approx(expected, abs=0.01)


def test_lag_is_what_reading_is_later_than_it_could_be() -> None:
    lag = Lag()
    in_time = [lag.add(50 + 0.04 * n, 0.04 * n) for n in range(50)]
    assert in_time == pytest.approx([0] * 50)
    assert lag.add(52, 2.5) == pytest.approx(0.5, abs=0.001)
    assert lag.add(52.04, 3.04) == pytest.approx(1, abs=0.002)
    assert lag.add(52.08, 2.08 + 0.25) == pytest.approx(0.25, abs=0.002)
    assert lag.add(60, 3) == 0  # a new clock
    assert lag.add(1, 4) == 0
    drifting = [lag.add(1 + 0.9999 * n, 4 + n) for n in range(10000)]  # by a second in all
    assert max(drifting) < 0.001
