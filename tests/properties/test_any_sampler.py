"""What holds of every sampler, for a video of any length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from examples import examples
from hypothesis import given, note
from hypothesis import strategies as st

from a2video.data import protocols
from a2video.data.samplers import (
    ClipSampler,
    ConsecutiveClips,
    EvenGaps,
    RandomClips,
    SegmentFrames,
    Short,
    UniformClips,
    frames_at_rate,
    span,
)
from a2video.data.transforms import Preprocessing

LENGTHS = st.one_of(st.integers(1, 40), st.integers(1, 20_000))
SHORTS: st.SearchStrategy[Short] = st.sampled_from(["loop", "repeat_last"])
FPS = st.one_of(st.none(), st.floats(0.05, 240))


@st.composite
def samplers(draw: Callable[[st.SearchStrategy], object], short: st.SearchStrategy = SHORTS) -> ClipSampler:
    """Any sampler, made with any numbers; `made` tells of how its clips are spaced."""
    num_frames, num_clips = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    stride = draw(st.integers(0, 20))
    last: dict[str, object] = {"target_fps": draw(FPS), "short": draw(short)}
    kind = draw(st.sampled_from([RandomClips, UniformClips, EvenGaps, ConsecutiveClips, SegmentFrames]))
    if kind is RandomClips:
        strides = draw(st.one_of(st.just(stride), st.lists(st.integers(0, 20), min_size=1, max_size=4)))
        return RandomClips(num_frames, strides, num_clips, **last)
    if kind is ConsecutiveClips:
        return ConsecutiveClips(num_frames, stride, draw(st.one_of(st.none(), st.integers(1, 200))), **last)
    if kind is SegmentFrames:
        return SegmentFrames(num_frames, draw(st.booleans()), **last)
    return kind(num_frames, stride, num_clips, **last)


def times_of(num_available: int, seed: int) -> np.ndarray:
    """Of a video whose frames come unevenly, some at the same time as one before."""
    gaps = np.random.default_rng(seed).choice([0.0, 0.001, 1 / 30, 0.04, 0.5], num_available)
    return np.cumsum(gaps) - gaps[0]


@examples
@given(samplers(), LENGTHS, st.integers(0, 2**32))
def test_every_frame_is_one_of_the_video_s(sampler: ClipSampler, num_available: int, seed: int) -> None:
    times = None if sampler.target_fps is None else times_of(num_available, seed)
    clips = sampler(num_available, np.random.default_rng(seed), times)
    note(str(clips))
    assert clips.shape[1] == sampler.num_frames
    assert sampler.num_clips in (None, len(clips))
    assert len(clips) >= 1
    assert clips.dtype == np.int64
    assert 0 <= clips.min() <= clips.max() < num_available
    again = sampler(num_available, np.random.default_rng(seed), times)
    assert np.array_equal(clips, again)
    if sampler.short == "repeat_last":
        assert (np.diff(clips) >= 0).all()


@examples
@given(samplers(), LENGTHS, st.integers(0, 2**32))
def test_a_global_generator_has_no_say(sampler: ClipSampler, num_available: int, seed: int) -> None:
    """So that neither the worker nor what came before matters."""
    found = []
    for other in (1, 2):
        np.random.seed(other)  # noqa: NPY002
        times = times_of(num_available, seed)
        found.append(sampler(num_available, np.random.default_rng(seed), times))
    assert np.array_equal(*found)


@examples
@given(st.integers(1, 40), st.integers(0, 20), st.integers(1, 12), LENGTHS, st.integers(0, 3))
def test_clips_keep_their_stride_where_the_video_is_long_enough(
    num_frames: int, stride: int, num_clips: int, extra: int, number: int
) -> None:
    sampler = (
        RandomClips(num_frames, stride, num_clips, short="error"),
        UniformClips(num_frames, stride, num_clips, short="error"),
        EvenGaps(num_frames, stride, num_clips, short="error"),
        ConsecutiveClips(num_frames, stride, short="error"),
    )[number]
    needed, rng = span(num_frames, stride), np.random.default_rng(0)
    num_available = needed + extra - 1
    clips = sampler(num_available, rng)
    assert (np.diff(clips) == stride).all()
    gaps = np.diff(clips[:, 0])
    if number > 0:
        assert (gaps >= 0).all()
    if number in (1, 2) and len(gaps):
        assert np.ptp(gaps) <= 1
    if number == 3:
        assert (gaps[:-1] == needed).all()
        assert (clips[0, 0], clips[-1, -1]) == (0, num_available - 1 if stride or num_frames == 1 else clips[-1, -1])
    if needed > 1:
        with pytest.raises(ValueError, match=f"has {needed - 1} frames, but a clip of {num_frames} needs {needed}"):
            sampler(needed - 1, rng)


@examples
@given(st.integers(1, 64), LENGTHS, st.booleans(), st.integers(0, 99))
def test_segments_take_a_frame_of_each_part(num_frames: int, num_available: int, random: bool, seed: int) -> None:
    (clip,) = SegmentFrames(num_frames, random, short="repeat_last")(num_available, np.random.default_rng(seed))
    assert (np.diff(clip) >= (1 if num_available >= num_frames else 0)).all()


@examples
@given(st.lists(st.sampled_from([0.0, 0.001, 1 / 60, 1 / 30, 0.04, 2.0]), min_size=1, max_size=80), FPS)
def test_frames_at_a_rate_rise_from_the_first_to_the_last(gaps: list[float], fps: float | None) -> None:
    times = np.cumsum(gaps) - gaps[0]
    frames = frames_at_rate(times, fps or 30.0)
    assert frames[0] >= 0
    assert times[frames[0]] <= 0.00101
    assert (np.diff(frames) >= 0).all()
    assert frames[-1] < len(times)


@examples
@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 5))
def test_a_rate_that_is_the_video_s_own_changes_nothing(num_available: int, stride: int, num_clips: int) -> None:
    times = np.arange(num_available) / 25
    assert frames_at_rate(times, 25).tolist() == list(range(num_available))
    plain = UniformClips(4, stride, num_clips)(num_available, np.random.default_rng(0))
    assert np.array_equal(
        plain, UniformClips(4, stride, num_clips, 25.0)(num_available, np.random.default_rng(0), times)
    )


@examples
@given(LENGTHS, st.integers(1, 32), st.integers(0, 16), st.sampled_from([1, 2, 3, 4, 5, 10]), st.sampled_from([1, 3]))
def test_protocols_say_how_many_views_they_have(
    num_available: int, num_frames: int, stride: int, num_clips: int, num_crops: int
) -> None:
    preprocessing = Preprocessing(num_frames, stride, 32, 24, num_clips, num_crops)
    kinds = ("Uniform10x3", "Uniform4x3", "Uniform5x1", "OneCentreClip", "OfPreprocessing", "Dense", "MfnetUcf101")
    for name in (*kinds, "GloreKinetics", "GloreKineticsClip"):
        protocol = getattr(protocols, name)(preprocessing)
        clips = protocol.sampler(num_available, np.random.default_rng(0))
        num_views = len(clips) * protocol.transform.num_crops + protocol.has_extra_centre
        assert protocol.num_views in (None, num_views)
        assert protocol.centre_view is None or -1 <= protocol.centre_view < num_views
        cuts = protocol.transform.draw_clips(40, 56, len(clips), np.random.default_rng(0))
        assert [len(cut.corners) for cut in cuts] == [protocol.transform.num_crops] * len(clips)
        for cut in cuts:
            for top, left in cut.corners:
                assert 0 <= top <= cut.size[0] - 24
                assert 0 <= left <= cut.size[1] - 24
