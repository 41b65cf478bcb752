"""Run a function on many jobs in processes of their own, none of which can hurt the run: by crashing or by hanging."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from a2video.errors import InputError

# A fork server imports what is slow once (see set_forkserver_preload); its children start in no time, and share
# neither threads nor locks with this process.
if sys.platform == "win32":
    CONTEXT = multiprocessing.get_context("spawn")
else:
    CONTEXT = multiprocessing.get_context("forkserver")

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextlib.contextmanager
def without_ctrl_c() -> Generator[None]:
    """Processes that are started in here never hear of Ctrl-C, which is for this one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # whose start would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Failure:
    """Why a job has no result: one sentence or part of one, without the job's name."""

    reason: str


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], num_workers: int, time_limit_seconds: float
) -> Generator[tuple[Job, Result | Failure], None, None]:
    """Runs `function` on each job and gives each job with its result, or Failure, in the order in which they finish.

    A job that runs longer than the limit is stopped by killing its process from outside, which also works where the
    function holds the interpreter's lock; a process that dies takes one job with it. Both get a new process. No process
    outlives the iterator, or this process.

    Args:
        function: importable by name, as it is called in other processes; its exceptions become Failure.
        jobs: anything that can be pickled; taken one by one as workers become free.
        num_workers: processes at a time, at least 1.
        time_limit_seconds: for each job, not counting the start of its process.

    Raises:
        RuntimeError: a process cannot even start.
    """
    waiting = iter(jobs)
    idle: list[_Worker[Job, Result]] = []
    busy: list[_Worker[Job, Result]] = []
    try:
        while True:
            for job in islice(waiting, num_workers - len(busy)):
                worker = idle.pop() if idle else _Worker[Job, Result](function, time_limit_seconds)
                worker.begin(job)
                busy.append(worker)
            if not busy:
                return
            next_deadline = min(worker.deadline for worker in busy)
            timeout = None if next_deadline == math.inf else max(0.0, next_deadline - time.monotonic())
            wait([worker.connection for worker in busy], timeout)
            for worker in tuple(busy):
                answer = worker.answer()
                if answer is not None:
                    busy.remove(worker)
                    if worker.process.is_alive():
                        idle.append(worker)
                    yield worker.job, answer[0]
    finally:
        for worker in (*idle, *busy):
            worker.kill()


class _Worker(Generic[Job, Result]):
    """One process and the job it is at."""

    def __init__(self, function: Callable[[Job], Result], time_limit_seconds: float) -> None:
        self.time_limit_seconds = time_limit_seconds
        self.deadline = math.inf  # of time.monotonic(), once the job runs
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(function, theirs), daemon=True)
        with without_ctrl_c():  # the first one starts the fork server too
            self.process.start()
        theirs.close()  # so that the end of the process closes the pipe

    def begin(self, job: Job) -> None:
        """Hands the job to the process."""
        self.job = job
        with contextlib.suppress(OSError):  # of a process that has just died: noticed by answer()
            self.connection.send(job)

    def answer(self) -> tuple[Result | Failure] | None:
        """The outcome in a tuple, or None while there is none; afterwards the process is idle or dead."""
        try:
            while self.connection.poll():
                message: tuple[Result | Failure] | tuple[()] = self.connection.recv()
                if message:
                    self.deadline = math.inf
                    return message
                self.deadline = time.monotonic() + self.time_limit_seconds  # the job has begun
        except (EOFError, OSError):
            return (self._death(),)
        if time.monotonic() < self.deadline:
            return None
        self.kill()
        return (Failure(f"takes longer than {self.time_limit_seconds:g} s"),)

    def _death(self) -> Failure:
        self.process.join(10)  # its pipe is closed, so that it is ending by itself
        self.kill()
        code = self.process.exitcode or 0
        if self.deadline == math.inf and code >= 0:
            raise RuntimeError(f"a worker process ended with status {code} before it could begin with {self.job!r}")
        if code < 0:
            return Failure(f"killed its process with signal {-code} ({signal.Signals(-code).name})")
        return Failure(f"ended its process with status {code}")

    def kill(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(function: Callable[[Any], Any], connection: Connection[Any, Any]) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then kills this one
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            connection.send(())
            connection.send((_outcome(function, job),))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _outcome(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except InputError as error:
        return Failure(str(error))
    except Exception as error:  # whatever it was, the other jobs go on
        return Failure(f"{type(error).__name__}: {error}")
