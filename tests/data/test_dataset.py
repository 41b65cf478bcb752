from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_video

from a2video.data.dataset import EpochSampler, VideoDataset, collate
from a2video.data.readers import VideoError
from a2video.data.samplers import RandomClips, UniformClips
from a2video.data.transforms import EvenCrops, Preprocessing, RandomCrop
from a2video.data.video_list import VideoList, read_video_list
from a2video.data.views import even_views, load_test_views, load_views
from a2video.errors import InputError


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """20 frames of 16 x 32; frame i has brightness 10 i on the left half and 10 i + 5 on the right half."""
    frames = np.zeros((20, 16, 32, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[:, :16], frame[:, 16:] = 10 * number, 10 * number + 5
    return write_video(tmp_path / "numbered.mp4", frames)


def test_views_are_clips_times_crops_of_the_right_frames(numbered: Path) -> None:
    views, _ = load_views(numbered, UniformClips(4, 2, 2), EvenCrops(16, 16, 3), np.random.default_rng(0))
    assert views.shape == (6, 3, 4, 16, 16)
    assert views.dtype == torch.uint8
    centre_columns = views[:, 0, :, 8, [0, 15]].float()  # left and right edge of every view and frame
    expected = []
    for starts in (0, 13):
        for left, right in ((0, 0), (0, 5), (5, 5)):  # left, centre and right crop
            expected.append([[10 * (starts + 2 * t) + left, 10 * (starts + 2 * t) + right] for t in range(4)])
    assert (centre_columns - torch.tensor(expected)).abs().max() <= 3  # RGB -> YUV -> RGB rounds


def test_test_views_are_what_the_preprocessing_says(numbered: Path) -> None:
    p = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16, num_clips=2, num_crops=3)
    assert torch.equal(
        load_test_views(numbered, p),
        load_views(numbered, UniformClips(4, 2, 2), EvenCrops(16, 16, 3), np.random.default_rng(5))[0],
    )


def test_target_rate_and_short_videos_of_the_preprocessing(numbered: Path) -> None:
    p = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16, num_clips=1, num_crops=1)
    views = load_test_views(numbered, dataclasses.replace(p, target_fps=10))  # frames 0, 3, ... 18 of 30 in a second
    assert (views[0, 0, :, 8, 0] - torch.tensor([0, 60, 120, 180])).abs().max() <= 3
    last = load_test_views(numbered, dataclasses.replace(p, frame_stride=8, short="repeat_last"))
    assert (last[0, 0, :, 8, 0] - torch.tensor([0, 80, 160, 190])).abs().max() <= 3
    with pytest.raises(VideoError, match=r"numbered\.mp4: has 20 frames, but a clip of 4 needs 25: take shorter clips"):
        load_test_views(numbered, dataclasses.replace(p, frame_stride=8, short="error"))


def training_set(folder: Path, seed: int = 0) -> VideoDataset:
    return VideoDataset(read_video_list(folder / "train.csv"), RandomClips(4, 2), RandomCrop((28, 32), 24, 0.5), seed)


def test_training_draws_depend_on_seed_epoch_and_video_alone(small_data: Path) -> None:
    dataset = training_set(small_data)
    first = dataset[3]["clips"]
    dataset[5]
    assert torch.equal(training_set(small_data)[3]["clips"], first)
    later_epoch = dataset[2 * len(dataset) + 3]
    assert later_epoch["video_index"] == 3
    assert not torch.equal(later_epoch["clips"], first)
    assert not torch.equal(training_set(small_data, seed=1)[3]["clips"], first)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_change_nothing(small_data: Path, num_workers: int) -> None:
    dataset = training_set(small_data)
    sampler = EpochSampler(len(dataset), shuffle=True, seed=3)
    sampler.set_epoch(1)
    loader = torch.utils.data.DataLoader(dataset, 4, sampler=sampler, num_workers=num_workers, collate_fn=collate)
    batches = list(loader)
    one_by_one = [dataset[index] for index in sampler]
    assert [i for batch in batches for i in batch["video_indices"].tolist()] == [i["video_index"] for i in one_by_one]
    assert torch.equal(torch.cat([batch["clips"] for batch in batches]), torch.stack([i["clips"] for i in one_by_one]))


def test_epoch_sampler_takes_every_video_once_in_a_new_order() -> None:
    sampler = EpochSampler(10, shuffle=True, seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(10 * epoch, 10 * epoch + 10))
        orders.append([index % 10 for index in order])
    assert orders[0] != orders[1] != orders[2]
    assert list(EpochSampler(4, shuffle=False)) == [0, 1, 2, 3]


def test_epoch_sampler_shares_among_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {}
    for shuffle in (True, False):
        for rank in range(3):
            monkeypatch.setattr("a2video.data.dataset._rank_and_world", lambda rank=rank: (rank, 3))
            sampler = EpochSampler(10, shuffle)
            parts[shuffle, rank] = list(sampler)
            assert len(sampler) == len(parts[shuffle, rank])
    assert [len(parts[True, rank]) for rank in range(3)] == [3, 3, 3]  # training: equal parts, one waits
    assert len({i for rank in range(3) for i in parts[True, rank]}) == 9
    assert [parts[False, rank] for rank in range(3)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]  # testing: all, once


def broken_file(path: Path) -> Path:
    path.write_text("not a video")
    return path


def test_broken_video_is_reported_in_testing(numbered: Path, tmp_path: Path) -> None:
    videos = VideoList("a list", (numbered, broken_file(tmp_path / "broken.mp4")), (0, 1), ("x", "y"))
    p = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16, num_clips=1, num_crops=1)
    dataset = VideoDataset(videos, *even_views(p))
    batch = collate([dataset[0], dataset[1]])
    assert batch["clips"].shape == (1, 1, 3, 4, 16, 16)
    assert batch["labels"].tolist() == batch["video_indices"].tolist() == [0]
    assert [index for index, _ in batch["errors"]] == [1]
    assert "broken.mp4" in batch["errors"][0][1]
    assert collate([dataset[1]])["labels"].shape == (0,)


def test_broken_video_in_training_is_replaced_by_another_with_its_own_label(numbered: Path, tmp_path: Path) -> None:
    paths = (numbered, *(broken_file(tmp_path / f"broken {number}.mp4") for number in range(3)), numbered)
    videos = VideoList("a list", paths, (0, 1, 2, 3, 4), ("x", "y", "z", "u", "v"))
    clips = RandomClips(4, 2), RandomCrop((16, 16), 16, 0.0)
    dataset = VideoDataset(videos, *clips, replace_bad=True)
    chosen = set()
    for epoch in range(6):
        item = dataset[5 * epoch + 2]
        assert item["label"] == item["video_index"]
        assert item["video_index"] in (0, 4)
        assert item["errors"][0][0] == 2
        assert len({index for index, _ in item["errors"]}) == len(item["errors"])  # none is tried twice
        assert all(f"broken {index - 1}.mp4" in message for index, message in item["errors"])
        known = VideoDataset(videos, *clips, replace_bad=True)
        known.known_bad = {2: "took too long"}
        same = known[5 * epoch + 2]
        assert same["video_index"] == item["video_index"]
        assert torch.equal(same["clips"], item["clips"])
        assert same["errors"][0] == (2, f"{paths[2]}: took too long")
        chosen.add(item["video_index"])
    assert chosen == {0, 4}


def test_a_disk_that_is_gone_is_an_error(tmp_path: Path) -> None:
    videos = VideoList("a list", tuple(tmp_path / f"{i}.mp4" for i in range(30)), (0,) * 30, ("x",))
    dataset = VideoDataset(videos, RandomClips(4, 2), RandomCrop((16, 16), 16, 0.0), replace_bad=True)
    with pytest.raises(InputError, match="30 videos of a list drawn one after the other cannot be read"):
        dataset[7]
