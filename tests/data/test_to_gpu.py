"""Batches that are copied to a GPU while it computes; most of it is skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from conftest import moving_square, write_video

from a2video.data.dataset import Batch, EpochSampler, VideoDataset
from a2video.data.samplers import RandomClips
from a2video.data.transforms import Preprocessing, RandomCrop
from a2video.data.video_list import VideoList
from a2video.data.watched_loader import WatchedLoader
from a2video.datamodule import VideoDataModule

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{index}.mp4", moving_square(1, 8, seed=index)) for index in range(6)]
    return VideoList("a list", tuple(map(str, paths)), (0, 1, 0, 1, 0, 1), ("x", "y"))


def loader_of(videos: VideoList, prefetch: bool) -> WatchedLoader:
    dataset = VideoDataset(videos, RandomClips(4, 1), RandomCrop((28, 32), 24, 0.5), 3, True)
    return WatchedLoader(dataset, EpochSampler(6, True, 3), 2, True, 2, prefetch=prefetch)


@needs_gpu
def test_batches_are_those_of_the_cpu_and_survive_the_next_ones(videos: VideoList) -> None:
    plain, ahead = loader_of(videos, False), loader_of(videos, True)
    busy = torch.rand(4096, 4096, device="cuda")
    sums: list[tuple[torch.Tensor, Batch]] = []
    for epoch in range(20):
        for loader in (plain, ahead):
            loader.batch_sampler.sampler.set_epoch(epoch)
        for expected, batch in zip(plain, ahead, strict=True):
            assert batch["clips"].is_cuda
            assert batch["labels"].is_cuda
            busy = busy @ busy / 4096  # so that the sum below is computed when later batches have been copied
            sums.append((batch["clips"].long().sum(), expected))
            del batch
    assert [int(total) for total, _ in sums] == [int(expected["clips"].long().sum()) for _, expected in sums]
    plain.close()
    ahead.close()


@needs_gpu
def test_a_pass_that_begins_in_the_middle(videos: VideoList) -> None:
    loader = loader_of(videos, True)
    rest = [batch["video_indices"].tolist() for batch in loader][1:]
    first = next(iter(loader))
    assert loader.state_dict() == {"num_batches": 1}
    del first
    loader.load_state_dict({"num_batches": 1})
    assert [batch["video_indices"].tolist() for batch in loader] == rest
    loader.close()


def test_without_a_gpu_nothing_changes(videos: VideoList) -> None:
    data = VideoDataModule(Preprocessing(4, 1, 24, 24), train_list="-", batch_size=2, prefetch_to_device=True)
    data.videos["train"] = videos
    loader = data.train_dataloader()
    assert not loader.prefetch
    assert not loader.pin_memory
    assert not next(iter(loader))["clips"].is_cuda
    data.teardown("fit")
