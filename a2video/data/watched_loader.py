"""Batches from worker processes, none of which can harm the run by hanging or dying over a video."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import queue
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Any, cast

import torch.multiprocessing  # lets tensors travel between processes in shared memory
from torch.utils.data import BatchSampler, Sampler

from a2video.data.dataset import Batch, VideoDataset, collate
from a2video.data.limits import die_with_parent, limit_memory
from a2video.data.to_gpu import CopyBeside, hand_over, pinned
from a2video.errors import InputError

PREFETCH_FACTOR = 2  # batches that each worker is ahead of their use
TICK_SECONDS = 0.5  # how often the time limit is looked at
PATIENCE_SECONDS = 5.0  # between looks whether the parent is still there, and for a process to end
MAX_DEATHS = 4  # of each worker on average, with no batch in between and no video to blame
NO_VIDEO = -1


class WatchedLoader:
    """Takes the place of torch's DataLoader over a VideoDataset, and survives what it does not.

    A worker that reads one video for longer than the limit is killed from here, since a decoder may hold the GIL and
    hear nothing; a worker may also die by itself (a crash of the decoder, the memory killer). A new worker does the
    batches that the old one still owed. A video that took too long, or with which two workers have died, goes into
    `dataset.known_bad`, and the stream of batches is the one that it would have been had the video been unreadable.
    A death that is not repeated changes nothing. The other workers go on undisturbed.

    Why not a DataLoader: it kills nothing; it throws all workers and their batches away when one has died, of which it
    hears in an exception that a signal handler raises anywhere in the main thread; and a worker that hangs while its
    last batch is fetched blocks it for ever. Here each worker has a pipe and a thread of its own.

    Workers start with the first batch and serve all epochs; one iterator is in use at a time. `load_state_dict` starts
    the next pass in the middle of its epoch.

    Args:
        dataset: the videos.
        sampler: indices of the data set; its `set_epoch`, if any, is called by Lightning.
        batch_size: indices in a batch.
        drop_last: leave out a last batch that is smaller.
        num_workers: processes; with 0 this one reads, unwatched.
        time_limit_seconds: for reading one video. Only time in which a batch was waited for is counted, so that a
            process that was suspended, or busy training, accuses no video.
        pin_memory: let workers' batches arrive in page-locked memory, for CUDA.
        prefetch: let them arrive in the memory of the CUDA device that is current when the workers start, copied there
            while it computes: all that are ready, PREFETCH_FACTOR for each worker.
        max_worker_bytes: of memory that a worker may take beyond what it begins with: a video that needs more cannot be
            read. No limit where 0.

    Attributes:
        while_waiting: makes the context in which each batch is waited for, to measure it.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        num_workers: int = 0,
        time_limit_seconds: float = 60.0,
        pin_memory: bool = False,
        prefetch: bool = False,
        max_worker_bytes: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = (
            BatchSampler(sampler, batch_size, drop_last) if drop_last else _Batches(sampler, batch_size)
        )
        self.num_workers = num_workers
        self.time_limit_seconds = time_limit_seconds
        self.pin_memory = pin_memory or prefetch
        self.prefetch = prefetch
        self.max_worker_bytes = max_worker_bytes
        self.while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        self._workers: list[_Worker] = []
        self._answers: queue.SimpleQueue[tuple[_Worker, int | None, Any]] = queue.SimpleQueue()
        self._done: dict[int, Batch] = {}
        self._num_given = 0  # batches given to workers, of all epochs
        self._first = 0  # number of the first batch of this epoch
        self._num_passed = 0  # batches of this epoch that have been used
        self._num_to_skip = 0  # of the next pass
        self._last_look = time.monotonic()
        self._suspects: set[int] = set()  # videos with which one worker has died
        self._num_deaths = 0  # that nothing was blamed for, since the last batch arrived
        weakref.finalize(self, _stop, self._workers, os.getpid())

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one pass, in the order of the sampler.

        Raises:
            InputError: workers die one after the other with no video to blame, or the data set raised one.
            RuntimeError: the data set raised something else, or another pass has begun meanwhile.
        """
        self._num_passed, self._num_to_skip = self._num_to_skip, 0
        plan = islice(self.batch_sampler, self._num_passed, None)
        batches = self._read(plan)
        while True:
            with self.while_waiting():
                batch = next(batches, None)
            if batch is None:
                return
            self._num_passed += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch have been given out."""
        return {"num_batches": self._num_passed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next pass begin after the first `num_batches` batches of its epoch; nothing of them is read."""
        self._num_to_skip = state["num_batches"]

    def close(self) -> None:
        """Ends the workers; a later pass starts new ones."""
        _stop(self._workers, os.getpid())
        self._done.clear()
        self._answers = queue.SimpleQueue()

    def _read(self, plan: Iterator[list[int]]) -> Iterator[Batch]:
        if self.num_workers == 0:
            for indices in plan:
                yield collate([self.dataset[index] for index in indices])
            return
        multiprocessing.util.get_temp_dir()  # which this process removes; else each killed worker left one
        while len(self._workers) < self.num_workers:
            self._workers.append(self._new_worker())
        self._done.clear()  # of an earlier pass that was left; what is still under way is dropped on arrival
        self._first = first = wanted = self._num_given
        for indices in islice(plan, PREFETCH_FACTOR * self.num_workers):
            self._give(indices)
        while wanted < self._num_given:
            if self._first != first:
                raise RuntimeError("another pass over this loader has begun: only one can be in use at a time")
            batch = self._wait_for(wanted)
            if self.prefetch:
                hand_over(batch)
            wanted += 1
            for indices in islice(plan, 1):
                self._give(indices)
            yield batch

    def _new_worker(self) -> _Worker:
        return _Worker(self.dataset, self._answers, self.pin_memory, self.prefetch, self.max_worker_bytes)

    def _give(self, indices: list[int]) -> None:
        worker = min(self._workers, key=lambda worker: len(worker.tasks))
        worker.give(self._num_given, indices, self.dataset.known_bad)
        self._num_given += 1

    def _wait_for(self, number: int) -> Batch:
        while number not in self._done:
            with suppress(queue.Empty):
                worker, answered, answer = self._answers.get(timeout=TICK_SECONDS)
                if worker not in self._workers:
                    continue  # one that has been replaced or closed
                if answered is None:
                    self._bury(worker, answer)
                    continue
                del worker.tasks[answered]
                self._num_deaths = 0
                if answered >= self._first:
                    if isinstance(answer, Exception):
                        raise answer
                    self._done[answered] = answer
            self._kill_the_slow()
        return self._done.pop(number)

    def _kill_the_slow(self) -> None:
        now = time.monotonic()
        passed, self._last_look = min(now - self._last_look, 2 * TICK_SECONDS), now
        for worker in list(self._workers):
            if worker.seconds_without_news(passed) > self.time_limit_seconds:
                worker.process.kill()
                worker.process.join(PATIENCE_SECONDS)  # one that waits for a disk that is gone cannot even be killed
                if worker.video != NO_VIDEO and not worker.has_news():
                    self.dataset.known_bad[worker.video] = f"took longer than {self.time_limit_seconds:g} s to read"
                    self._replace(worker)
                else:
                    self._replace_blameless(worker, f"did nothing for {self.time_limit_seconds:g} s", None)

    def _bury(self, dead: _Worker, error: Exception) -> None:
        """Replaces a worker from which nothing comes any more; `error` says how that showed."""
        dead.process.join(PATIENCE_SECONDS)
        code = dead.process.exitcode
        if code is None:
            raise RuntimeError("a batch could not be received from a data loading worker") from error
        if code < 0:
            how = f"was killed by signal {-code} ({signal.strsignal(-code)}{', perhaps for memory' * (code == -9)})"
        else:
            how = f"ended with status {code}"
        if dead.video in self._suspects:
            self.dataset.known_bad[dead.video] = f"the second process that read it {how}"
            self._replace(dead)
            return
        if dead.video != NO_VIDEO:
            self._suspects.add(dead.video)  # perhaps the blow was not meant for it: read it again
        self._replace_blameless(dead, how, error)

    def _replace_blameless(self, dead: _Worker, how: str, error: Exception | None) -> None:
        self._num_deaths += 1
        if self._num_deaths > MAX_DEATHS * self.num_workers:
            raise InputError(
                f"data loading workers end one after the other, the last one {how}: look for messages above, and give "
                "them more memory or shared memory (in Docker --shm-size), or lower data.num_workers"
            ) from error
        self._replace(dead)

    def _replace(self, dead: _Worker) -> None:
        new = self._workers[self._workers.index(dead)] = self._new_worker()
        for number, indices in dead.tasks.items():
            if number >= self._first:
                new.give(number, indices, self.dataset.known_bad)


class _Batches(BatchSampler):
    """Batches of all indices; one empty batch where there are none, so that Lightning still runs the epoch's hooks."""

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        batches = super().__iter__()
        yield next(batches, [])
        yield from batches

    def __len__(self) -> int:
        return max(1, super().__len__())


class _Worker:
    """A process that reads batches, and a thread here that receives them."""

    def __init__(
        self,
        dataset: VideoDataset,
        answers: queue.SimpleQueue[tuple[_Worker, int | None, Any]],
        pin_memory: bool,
        prefetch: bool,
        max_bytes: int,
    ) -> None:
        context = cast("multiprocessing.context.ForkContext", multiprocessing.get_context())
        self.tasks: dict[int, list[int]] = {}  # indices of the batches that it owes, by their numbers
        self._table = context.RawArray("q", [NO_VIDEO, 0])  # the video it reads, how many beginnings and ends so far
        self._seen = 0
        self._seconds = 0.0
        self._num_known_bad = len(dataset.known_bad)
        self.connection, its_end = context.Pipe()
        in_main_thread = threading.current_thread() is threading.main_thread()
        arguments = (its_end, self._table, dataset, in_main_thread, max_bytes)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        with _without_interrupts():
            self.process.start()
        its_end.close()  # so that its death ends our reading from the pipe
        device = torch.cuda.current_device() if pin_memory else None
        move = CopyBeside() if prefetch else pinned
        threading.Thread(target=self._receive, args=(answers, device, move), daemon=True).start()

    @property
    def video(self) -> int:
        """Index of the video that it is reading, or NO_VIDEO."""
        return int(self._table[0])

    def give(self, number: int, indices: list[int], known_bad: dict[int, str]) -> None:
        """Sends it a batch to read."""
        self.tasks[number] = indices
        news = dict(islice(known_bad.items(), self._num_known_bad, None))
        self._num_known_bad = len(known_bad)
        with suppress(OSError):  # it has died, as its thread will tell
            self.connection.send((number, indices, news))

    def has_news(self) -> bool:
        """Whether it has begun or ended a read since the last call of `seconds_without_news`."""
        return bool(self._table[1] != self._seen)

    def seconds_without_news(self, passed: float) -> float:
        """How long it has owed a batch and neither begun nor ended a read, given the seconds since the last call."""
        self._seconds = self._seconds + passed if self.tasks and not self.has_news() else 0.0
        self._seen = self._table[1]
        return self._seconds

    def _receive(
        self,
        answers: queue.SimpleQueue[tuple[_Worker, int | None, Any]],
        device: int | None,
        move: Callable[[Batch], Batch],
    ) -> None:
        """Puts (self, number, batch or exception) for each batch and (self, None, exception) at the end."""
        if device is not None:
            torch.cuda.set_device(device)
        with self.connection:
            while True:
                try:
                    number, answer = self.connection.recv()
                except Exception as error:  # it has died: perhaps while we fetched the memory of its last batch
                    answers.put((self, None, error))
                    return
                try:
                    if device is not None and isinstance(answer, dict):
                        answer = move(cast(Batch, answer))
                except Exception as error:  # the device has no memory left, for instance
                    answer = error
                answers.put((self, number, answer))


def _work(
    connection: multiprocessing.connection.Connection,
    table: Any,
    dataset: VideoDataset,
    is_child_of_main_thread: bool,
    max_bytes: int,
) -> None:
    """What a worker does until its parent ends it, or has gone."""
    if is_child_of_main_thread:  # the kernel looks at the thread, not at the process
        die_with_parent()  # even while a decoder hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler, which a fork inherits
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_num_threads(1)
    if max_bytes:
        limit_memory(max_bytes)
    dataset.on_read = partial(_note, table)
    parent = os.getppid()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            while not connection.poll(PATIENCE_SECONDS):
                if os.getppid() != parent:
                    return
            number, indices, known_bad = connection.recv()
            dataset.known_bad.update(known_bad)
            answer: Batch | Exception
            try:
                answer = collate([dataset[index] for index in indices])
            except InputError as error:
                answer = error
            except Exception:
                answer = RuntimeError(f"in a data loading worker:\n{traceback.format_exc()}")
            connection.send((number, answer))
            del answer  # its memory


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits: Python swallows what is raised within its own functions around a fork."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _note(table: Any, video_index: int | None) -> None:
    table[1] += 1
    table[0] = NO_VIDEO if video_index is None else video_index


def _stop(workers: list[_Worker], owner: int) -> None:
    """Ends the workers, unless this is a fork of the process that has them."""
    if os.getpid() == owner:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join(PATIENCE_SECONDS)
        workers.clear()
