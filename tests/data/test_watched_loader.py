from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moving_square, write_video

from a2video.data import dataset as dataset_module
from a2video.data.dataset import Batch, EpochSampler, Item, VideoDataset, collate
from a2video.data.samplers import RandomClips
from a2video.data.transforms import RandomCrop
from a2video.data.video_list import VideoList
from a2video.data.views import reading
from a2video.data.watched_loader import WatchedLoader
from a2video.errors import InputError

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers inherit the harmful reader by a fork")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """16 videos, of which 2 is a text file, 5 hangs, 9 crashes and 12 ends its process (see harmful_videos)."""
    folder = tmp_path_factory.mktemp("videos")
    names = {2: "text", 5: "hang", 9: "crash", 12: "exit"}
    paths = [folder / f"{names.get(index, 'good')} {index}.mp4" for index in range(16)]
    for index, path in enumerate(paths):
        write_video(path, moving_square(1, 8, seed=index))
    paths[2].write_text("text")
    return VideoList("a list", tuple(paths), tuple(index % 3 for index in range(16)), ("x", "y", "z"))


def dataset_of(videos: VideoList, replace_bad: bool = True) -> VideoDataset:
    return VideoDataset(videos, RandomClips(4, 1), RandomCrop((28, 32), 24, 0.5), 3, replace_bad)


def loader_of(
    dataset: VideoDataset, num_workers: int, time_limit_seconds: float = 1.0, **options: object
) -> WatchedLoader:
    sampler = EpochSampler(len(dataset), True, 3)
    return WatchedLoader(dataset, sampler, 3, True, num_workers, time_limit_seconds, **options)


def epoch_of(loader: WatchedLoader, epoch: int) -> list[Batch]:
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        for name in ("clips", "labels", "video_indices"):
            assert torch.equal(our[name], their[name])
        assert our["errors"] == their["errors"]


@pytest.fixture
def no_orphans() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@needs_fork
@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_are_those_of_unreadable_videos(
    videos: VideoList, harmful_videos: None, no_orphans: None, num_workers: int
) -> None:
    dataset = dataset_of(videos)
    loader = loader_of(dataset, num_workers)
    start = time.monotonic()
    epochs = [epoch_of(loader, epoch) for epoch in range(3)]
    assert time.monotonic() - start < 9  # the limit of 1 s once, not each epoch
    loader.close()
    assert dataset.known_bad == {
        5: "took longer than 1 s to read",
        9: "the second process that read it was killed by signal 11 (Segmentation fault)",
        12: "the second process that read it ended with status 3",
    }
    assert {index for epoch in epochs for batch in epoch for index, _ in batch["errors"]} == {2, 5, 9, 12}
    alone = dataset_of(videos)
    alone.known_bad = dataset.known_bad
    for epoch, batches in enumerate(epochs):
        assert_same(batches, epoch_of(loader_of(alone, 0), epoch))


@needs_fork
def test_nothing_is_replaced_where_that_is_not_wanted(
    videos: VideoList, harmful_videos: None, no_orphans: None
) -> None:
    dataset = dataset_of(videos, replace_bad=False)
    loader = WatchedLoader(dataset, EpochSampler(16, False), 4, False, 2, 0.5)
    batches = list(loader)
    loader.close()
    assert [batch["video_indices"].tolist() for batch in batches] == [[0, 1, 3], [4, 6, 7], [8, 10, 11], [13, 14, 15]]
    assert [[index for index, _ in batch["errors"]] for batch in batches] == [[2], [5], [9], [12]]
    assert batches[1]["errors"][0][1] == f"{videos.paths[5]}: took longer than 0.5 s to read"


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_other_ways_to_start_workers(
    videos: VideoList, start_method: str, monkeypatch: pytest.MonkeyPatch, no_orphans: None
) -> None:
    context = multiprocessing.get_context(start_method)
    monkeypatch.setattr(multiprocessing, "get_context", lambda: context)
    loader = loader_of(dataset_of(videos), 1, time_limit_seconds=60)
    batches = epoch_of(loader, 1)
    loader.close()
    assert_same(batches, epoch_of(loader_of(dataset_of(videos), 0), 1))


@needs_fork
def test_a_death_that_is_not_repeated_changes_nothing(
    videos: VideoList, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_orphans: None
) -> None:
    """Killed from outside while reading one video, and while idle."""
    load_views = dataset_module.load_views

    def die_once(path: str, *rest: object) -> torch.Tensor:
        done = tmp_path / Path(path).name
        if path == videos.paths[7] and not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load_views(path, *rest)

    monkeypatch.setattr(dataset_module, "load_views", die_once)
    dataset = dataset_of(videos, replace_bad=False)
    loader = loader_of(dataset, 2)
    batches = epoch_of(loader, 0)
    assert list(tmp_path.iterdir())
    assert dataset.known_bad.keys().isdisjoint({7})
    for worker in loader._workers:
        worker.process.kill()
        worker.process.join()
    later = epoch_of(loader, 1)
    loader.close()
    alone = dataset_of(videos, replace_bad=False)
    alone.known_bad = dataset.known_bad
    assert_same(batches, epoch_of(loader_of(alone, 0), 0))
    assert_same(later, epoch_of(loader_of(alone, 0), 1))


@needs_fork
def test_workers_that_always_die_end_the_run(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2video.data.watched_loader.collate", lambda items: os._exit(7))
    loader = loader_of(dataset_of(videos), 2)
    with pytest.raises(InputError, match=r"workers end one after the other, the last one ended with status 7: look"):
        list(loader)
    loader.close()


@needs_fork
def test_a_worker_that_hangs_outside_of_reading_is_replaced(
    videos: VideoList, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_orphans: None
) -> None:
    def hang_once(items: list[Item]) -> Batch:
        if not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            time.sleep(1000)
        return collate(items)

    monkeypatch.setattr("a2video.data.watched_loader.collate", hang_once)
    dataset = dataset_of(videos)
    batches = epoch_of(loader := loader_of(dataset, 1), 0)
    loader.close()
    assert dataset.known_bad == {}
    assert_same(batches, epoch_of(loader_of(dataset_of(videos), 0), 0))


def test_a_second_pass_ends_the_first(videos: VideoList) -> None:
    loader = loader_of(dataset_of(videos), 1)
    first, second = iter(loader), iter(loader)
    next(first)
    next(second)
    with pytest.raises(RuntimeError, match="another pass over this loader has begun"):
        next(first)
    assert len(list(second)) == len(loader) - 1
    loader.close()


def test_a_pass_may_be_left_and_a_loader_closed(videos: VideoList, no_orphans: None) -> None:
    loader = loader_of(dataset_of(videos), 2)
    loader.batch_sampler.sampler.set_epoch(0)
    next(iter(loader))
    workers = [worker.process.pid for worker in loader._workers]
    later = epoch_of(loader, 1)
    assert [worker.process.pid for worker in loader._workers] == workers
    assert_same(later, epoch_of(loader_of(dataset_of(videos), 0), 1))
    loader.close()
    assert_same(epoch_of(loader, 1), later)
    del loader  # ends its workers, too


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_pass_may_begin_in_the_middle(videos: VideoList, no_orphans: None, num_workers: int) -> None:
    whole = epoch_of(loader_of(dataset_of(videos), 0), 1)
    loader = loader_of(dataset_of(videos), num_workers)
    loader.load_state_dict({"num_batches": 2})
    loader.batch_sampler.sampler.set_epoch(1)
    rest = iter(loader)
    assert_same([next(rest)], whole[2:3])
    assert loader.state_dict() == {"num_batches": 3}
    assert_same(list(rest), whole[3:])
    assert_same(epoch_of(loader, 1), whole)
    loader.close()


@needs_fork
def test_a_worker_ended_by_sigterm_accuses_no_video(
    videos: VideoList, tmp_path: Path, no_orphans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_views, has_ended = dataset_module.load_views, tmp_path / "has ended"

    def load_or_end(path: Path, *rest: Any) -> Any:
        if path == videos.paths[5] and not has_ended.exists():
            has_ended.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return load_views(path, *rest)

    monkeypatch.setattr(dataset_module, "load_views", load_or_end)
    loader = loader_of(dataset_of(videos), 2)
    batches = epoch_of(loader, 0)
    loader.close()
    assert has_ended.exists()
    assert loader.dataset.known_bad == {}
    assert_same(batches, epoch_of(loader_of(dataset_of(videos), 0), 0))


def test_errors_of_other_kinds_arrive(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> None:
        def load_views(*args: object) -> None:
            raise error

        monkeypatch.setattr("a2video.data.dataset.load_views", load_views)
        loader = loader_of(dataset_of(videos), 1)
        try:
            list(loader)
        finally:
            loader.close()

    with pytest.raises(RuntimeError, match=r"(?s)in a data loading worker:.*ZeroDivisionError: of mine"):
        fails(ZeroDivisionError("of mine"))
    with pytest.raises(InputError, match=r"^one sentence$"):
        fails(InputError("one sentence"))


def test_a_batch_for_which_the_device_has_no_memory_is_no_dead_worker(
    videos: VideoList, no_orphans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pinned(batch: Batch) -> Batch:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("a2video.data.watched_loader.pinned", pinned)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    dataset = dataset_of(videos)
    dataset.known_bad.update(dict.fromkeys((2, 5, 9, 12), "known"))
    loader = loader_of(dataset, 1, pin_memory=True)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        list(loader)
    loader.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_pinned_memory(videos: VideoList) -> None:
    loader = loader_of(dataset_of(videos), 2)
    loader.pin_memory = True
    assert all(batch[name].is_pinned() for batch in loader for name in ("clips", "labels", "video_indices"))
    loader.close()


def test_seconds_are_counted_from_one_sign_of_life_to_the_next(videos: VideoList) -> None:
    loader = loader_of(dataset_of(videos), 1)
    next(iter(loader))
    (worker,) = loader._workers
    worker.process.kill()
    worker.process.join()
    seconds = []
    for video, count in ((-1, 100), (4, 101), (4, 101), (4, 101), (-1, 102), (-1, 102), (4, 103), (4, 103), (4, 105)):
        worker._table[:] = [video, count]
        seconds.append(worker.seconds_without_news(0.5))
    assert np.allclose(seconds, [0, 0, 0.5, 1, 0, 0.5, 0, 0.5, 0])
    loader.close()


@needs_fork
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_worker_has_a_limit_of_memory(videos: VideoList, monkeypatch: pytest.MonkeyPatch, no_orphans: None) -> None:
    """A video that wants more cannot be read; with torch's memory or numpy's; others go on."""
    load_views = dataset_module.load_views

    def load_or_grow(path: Path, *rest: Any) -> Any:
        with reading(path):
            if "good 3" in str(path):
                torch.zeros(1 << 30)
            if "good 4" in str(path):
                np.zeros(1 << 33)
        return load_views(path, *rest)

    monkeypatch.setattr(dataset_module, "load_views", load_or_grow)
    few = VideoList("a list", videos.paths[3:5] + videos.paths[0:2], (0, 0, 0, 0), ("x",))
    loader = WatchedLoader(dataset_of(few, False), EpochSampler(4, False), 4, num_workers=1, max_worker_bytes=1 << 30)
    (batch,) = loader
    loader.close()
    reason = "takes more memory to read than there is for it here"
    assert batch["errors"] == [(number, f"{few.paths[number]}: {reason}") for number in (0, 1)]
    assert batch["video_indices"].tolist() == [2, 3]
