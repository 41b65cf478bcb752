from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_video

from a2video.data.pytorchvideo_adapter import PytorchvideoSampler
from a2video.data.samplers import ClipSampler, ConsecutiveClips, RandomClips, SegmentFrames, UniformClips


def frames_of(sampler: PytorchvideoSampler, num_frames: int) -> list[tuple[int, int]]:
    """First and last frame of each clip, as pytorchvideo cuts them out of a 30 fps video; asks until the last clip."""
    clips = []
    end: Fraction | float = 0.0
    while True:
        start, end, number, augmentation, is_last = sampler(end, Fraction(num_frames, 30), {})
        assert (number, augmentation) == (len(clips), 0)
        shown = [frame for frame in range(num_frames) if start <= Fraction(frame, 30) < end]
        clips.append((shown[0], shown[-1]))
        if is_last:
            return clips


@pytest.mark.parametrize(
    ("sampler", "num_frames", "expected"),
    [
        (UniformClips(8, 8), 300, [(121, 177)]),
        (UniformClips(8, 8, 2), 100, [(0, 56), (43, 99)]),
        (ConsecutiveClips(4, 2), 20, [(0, 6), (7, 13), (13, 19)]),
        (UniformClips(4, 2), 5, [(0, 4)]),  # shorter than a clip
        (UniformClips(1, 1), 5, [(2, 2)]),
        (UniformClips(4, 2, target_fps=15), 40, [(12, 24)]),
        (SegmentFrames(4, random=False), 10, [(1, 8)]),
    ],
)
def test_clips_in_seconds_hold_the_frames_of_ours(
    sampler: ClipSampler, num_frames: int, expected: list[tuple[int, int]]
) -> None:
    adapter = PytorchvideoSampler(sampler, 30)
    assert frames_of(adapter, num_frames) == expected
    adapter.reset()
    assert frames_of(adapter, num_frames) == expected


def test_reset_starts_another_video() -> None:
    adapter = PytorchvideoSampler(UniformClips(4, 2, 3), 30)
    adapter(0.0, 1.0, {})
    adapter.reset()
    assert adapter(0.0, 1.0, {}).clip_index == 0
    assert adapter(0.5, 1.0, {}).clip_index == 1


def test_random_clips_follow_torchs_seed() -> None:
    adapter = PytorchvideoSampler(RandomClips(4, 2), 30)
    torch.manual_seed(3)
    first = [adapter(0.0, 10.0, {}) for _ in range(5)]
    torch.manual_seed(3)
    assert [adapter(0.0, 10.0, {}) for _ in range(5)] == first
    assert len(set(first)) > 1


def test_wrong_rate() -> None:
    with pytest.raises(ValueError, match="expected fps > 0, got 0"):
        PytorchvideoSampler(RandomClips(4, 2), 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "decoder", "num_seen"),
    [
        ("exact.mp4", "pyav", 40),
        ("exact.mp4", "decord", 40),
        ("milliseconds.mkv", "pyav", 39),  # has no duration; pytorchvideo takes the last frame's time for it
        ("milliseconds.mkv", "decord", 40),
    ],
)
def test_in_pytorchvideos_data_set(tmp_path: Path, name: str, decoder: str, num_seen: int) -> None:
    try:
        from pytorchvideo.data import LabeledVideoDataset
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"pytorchvideo.data does not import: {error}")
    frames = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, (40, 64, 64, 3))
    path = write_video(tmp_path / name, np.ascontiguousarray(frames))
    for sampler in (UniformClips(4, 3, 3), RandomClips(4, 3)):
        adapter = PytorchvideoSampler(sampler, 30)
        videos = [(str(path), {"label": n}) for n in range(2)]
        torch.manual_seed(0)
        data = LabeledVideoDataset(videos, adapter, torch.utils.data.SequentialSampler, None, False, decoder)
        found = [[round(float(f) / 6) for f in clip["video"][0, :, 8, 8]] for clip in data]
        torch.manual_seed(0)
        expected = []
        for _ in videos:
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
            expected += [list(range(clip[0], clip[-1] + 1)) for clip in sampler(num_seen, rng).tolist()]
        assert found == expected
