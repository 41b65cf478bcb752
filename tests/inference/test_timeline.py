"""Timelines of real videos whose scenes are known, with a backend that knows colours."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from colours import COLOURS, Colours, P, colour_classifier
from conftest import write_video

from a2video import InputError, VideoError
from a2video.data.readers import open_video
from a2video.data.samplers import ConsecutiveClips
from a2video.data.views import draw_clips, even_views, load_views, stream_clips
from a2video.inference.timeline import Timeline, segment_labels, timeline


def scenes(path: Path, *parts: tuple[str, int]) -> Path:
    """A video of plain colours, each for a number of frames, at 30 frames in a second."""
    frames = [np.broadcast_to(np.array(COLOURS[name], np.uint8), (count, 16, 20, 3)) for name, count in parts]
    return write_video(path, np.concatenate(frames))


@pytest.fixture(scope="module")
def three_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("scenes") / "three.mp4", ("red", 65), ("green", 50), ("blue", 38))


@pytest.mark.parametrize("stride_seconds", [None, 0.1, 1 / 30])
def test_scenes_are_found_within_a_stride(three_scenes: Path, stride_seconds: float | None) -> None:
    found = timeline(colour_classifier(), three_scenes, stride_seconds)
    stride = stride_seconds or 3 / 30
    assert [segment.label for segment in found.segments] == ["red", "green", "blue"]
    assert found.segments[0].start_seconds == 0
    assert found.segments[0].end_seconds == pytest.approx(65 / 30, abs=stride + 1e-6)
    assert found.segments[1].end_seconds == pytest.approx(115 / 30, abs=stride + 1e-6)
    assert found.segments[2].end_seconds == pytest.approx(153 / 30)
    for earlier, later in zip(found.segments, found.segments[1:], strict=False):
        assert earlier.end_seconds == later.start_seconds
    assert all(segment.confidence > 0.9 for segment in found.segments)


def test_windows_cover_the_tail(three_scenes: Path) -> None:
    found = timeline(colour_classifier(), three_scenes, 0.2)
    starts = [*range(0, 146, 6), 146]  # 153 frames, span 7: the last window begins at 146
    np.testing.assert_allclose(found.windows, [(s / 30, (s + 7) / 30) for s in starts], atol=1e-6)
    assert found.window_probs[-1].argmax() == 2
    np.testing.assert_allclose(found.window_probs.sum(1), 1, atol=1e-6)


def test_a_flash_no_longer_than_a_window_is_no_segment(tmp_path: Path) -> None:
    video = scenes(tmp_path / "flash.mp4", ("red", 60), ("blue", 6), ("red", 60))
    found = timeline(colour_classifier(), video)
    assert found.probs.argmax(1).max() == 2  # it is in the windows
    assert [segment.label for segment in found.segments] == ["red"]


def test_shorter_than_a_clip(tmp_path: Path) -> None:
    video = scenes(tmp_path / "short.mp4", ("green", 5))
    (segment,) = timeline(colour_classifier(), video).segments
    assert (segment.label, segment.start_seconds) == ("green", 0)
    assert segment.end_seconds == pytest.approx(5 / 30)
    with pytest.raises(VideoError, match="a clip of 4 needs 7"):
        timeline(colour_classifier(dataclasses.replace(P, short="error")), video)


def test_seen_at_another_rate(three_scenes: Path) -> None:
    half = dataclasses.replace(P, target_fps=15.0)  # a window is 13 frames of the video
    found = timeline(colour_classifier(half), three_scenes)
    assert [segment.label for segment in found.segments] == ["red", "green", "blue"]
    assert found.windows[0, 1] == pytest.approx(13 / 30)
    assert found.edges[1] == pytest.approx(3 / 15)


@pytest.mark.parametrize("stride_seconds", [0.0, -1.0, 0.5])
def test_strides_that_leave_gaps(three_scenes: Path, stride_seconds: float) -> None:
    with pytest.raises(InputError, match=r"does not suit the windows of 0\.233 s"):
        timeline(colour_classifier(), three_scenes, stride_seconds)


def test_progress_rises_to_the_end(three_scenes: Path) -> None:
    shares: list[float] = []
    timeline(colour_classifier(), three_scenes, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("num_crops", [1, 3])
def test_streamed_clips_are_the_loaded_ones(tmp_path: Path, num_crops: int) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (60, 20, 34, 3), dtype=np.uint8)
    path = write_video(tmp_path / "noise.mp4", frames)
    p = dataclasses.replace(P, num_crops=num_crops)
    sampler, transform, rng = ConsecutiveClips(4, 2, 3), even_views(p)[1], np.random.default_rng(0)
    expected, _ = load_views(path, sampler, transform, rng)
    got = []
    with open_video(path) as video:
        stream_clips(
            video, draw_clips(video, sampler, rng), transform, lambda number, views: got.append((number, views))
        )
    assert [number for number, _ in got] == list(range(len(expected) // num_crops))
    for number, views in got:
        assert (views == expected[num_crops * number : num_crops * (number + 1)]).all()


def test_clips_are_scored_a_few_together_and_dropped(three_scenes: Path) -> None:
    classifier = colour_classifier(dataclasses.replace(P, num_crops=3))
    timeline(classifier, three_scenes, 0.2)
    assert classifier.backend.num_clips == [15, 15, 15, 15, 15, 3]  # 26 windows of 3 crops, at most 16 together


def test_segments_against_all_segmentations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        probs = rng.dirichlet([0.5] * 3, 7)
        assert scored(probs, segment_labels(probs, 3)) == pytest.approx(
            max(scored(probs, s) for s in segmentations(7, 3))
        )
    assert segment_labels(np.array([[0.4, 0.6]]), 5).tolist() == [1]
    assert segment_labels(np.array([[0.4, 0.6], [0.9, 0.1]]), 1).tolist() == [1, 0]


def scored(probs: np.ndarray, labels: np.ndarray) -> float:
    return float(sum(np.log(max(row[label], 1e-6)) for row, label in zip(probs, labels, strict=True)))


def segmentations(num_slots: int, shortest: int) -> list[np.ndarray]:
    """Every labelling whose runs have at least `shortest` slots."""
    found = []
    for number in range(3**num_slots):
        labels = np.array([number // 3**slot % 3 for slot in range(num_slots)])
        changes = np.flatnonzero(np.diff(labels)) + 1
        if (np.diff([0, *changes, num_slots]) >= shortest).all():
            found.append(labels)
    return found


def test_slots_where_frames_are_missing_take_the_window_before() -> None:
    windows = np.array([[0.0, 1.0], [4.0, 5.0]])
    found = Timeline("x", ("a", "b"), windows, np.array([[1.0, 0.0], [0.0, 1.0]]), np.arange(6.0))
    assert found.probs[:, 0].tolist() == [1, 1, 1, 1, 0]
    assert [found.slot_at(moment) for moment in (-1, 0, 0.9, 1, 4.9, 5, 9)] == [0, 0, 0, 1, 4, 4, 4]


def test_time_stamps_decide_neither_memory_nor_time(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + number, np.uint8))
            frame.pts, frame.time_base = 33 * number + (10**12 if number == 19 else 0), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = timeline(colour_classifier(), path)
    assert len(found.edges) < 100
    assert found.segments[-1].end_seconds > 1e8
    with pytest.raises(VideoError, match="too long to be seen at 15 fps"):
        timeline(colour_classifier(dataclasses.replace(P, target_fps=15.0)), path)


def test_what_is_no_number_is_no_result(three_scenes: Path) -> None:
    classifier = colour_classifier()
    classifier.backend = Colours(float("nan"))
    for ask in (lambda: timeline(classifier, three_scenes), lambda: classifier(three_scenes)):
        with pytest.raises(InputError, match="not finite"):
            ask()
