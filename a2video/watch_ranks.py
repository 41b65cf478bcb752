"""Ends a process of a run of several when another one is no more, instead of letting it wait for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch.distributed import TCPStore  # type: ignore[attr-defined]

BEAT_SECONDS = 5.0
SECONDS_TO_CONNECT = 20.0
PATIENCE_SECONDS = 30.0  # with the time to notice and to tell the others, all end within a minute
SECONDS_TO_FINISH = 10.0
GOODBYE = "goodbye"
LOST = "lost"  # the key with the name of a process that is no more
OF_GLOO = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "Read error")
GO_ON = (
    "look for what it said last; from the last checkpoint (or, in a test, the last scores) the same command goes on, "
    "a fit with --ckpt_path last"
)


class WatchRanks(pl.Callback):
    """Lets each rank give signs of life, and ends this one when another has given none for a while.

    In a collective operation torch waits for a process that was killed, with its machine perhaps, until its time limit
    of up to half an hour; gloo alone notices at once that a connection was closed. So a thread of each rank counts up a
    number in the store by which torch's processes have found each other, and looks at that of the next rank. Little is
    counted of a time in which this process did not run itself, as when a whole job is suspended.
    """

    def __init__(self) -> None:
        self._thread: _Watch | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins to watch."""
        if trainer.world_size > 1 and "MASTER_PORT" in os.environ:
            name = trainer.strategy.broadcast(uuid4().hex)
            store = _store()
            if trainer.strategy.reduce_boolean_decision(store is not None) and store is not None:
                self._thread = _Watch(name, trainer.global_rank, trainer.world_size, store)
                self._thread.start()
            else:
                rank_zero_info("The ranks do not watch each other, for torch's store gives them no second connection")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ends in good order, as the others are told."""
        self._stop(is_good=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Falls silent: the others are to end too."""
        self._stop(is_good=False)

    def _stop(self, is_good: bool) -> None:
        if self._thread is not None:
            self._thread.is_good = is_good
            self._thread.end.set()
            self._thread.finish()
            self._thread = None


class _Watch(threading.Thread):
    """Looks whether there is news of the next rank and of the store.

    Args:
        name: of this run, the same on all ranks.
        rank: of this process.
        world: number of ranks.
        store: by which they talk; this connection is nobody else's.
    """

    def __init__(self, name: str, rank: int, world: int, store: TCPStore) -> None:
        super().__init__(daemon=True)
        self.end = threading.Event()
        self.is_good = False  # whether the end is in good order
        self._store = store
        self._name, self._rank, self._next = name, rank, (rank + 1) % world
        self._num_beats = 0
        self._news = ""  # of the next rank
        self._lost = ""  # whom another rank has lost
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._first_is_done = False

    def run(self) -> None:
        """Until the end of the run or of another rank."""
        self._beating.start()
        last, seen = time.monotonic(), (0, "")
        store_silent = next_silent = 0.0  # seconds without news
        while not self.end.wait(BEAT_SECONDS):
            now = time.monotonic()
            passed, last = min(now - last, 2 * BEAT_SECONDS), now  # while this process was awake
            num_beats, news = self._num_beats, self._news
            store_silent = store_silent + passed if num_beats == seen[0] else 0.0
            if news != seen[1] or news == GOODBYE:
                next_silent = 0.0
            elif not store_silent:
                next_silent += passed
            seen = num_beats, news
            if self._first_is_done and store_silent:  # and has taken the store with it
                return
            if next_silent > PATIENCE_SECONDS:
                self._lost = f"rank {self._next}"  # as _beat will tell the others
            elif store_silent > PATIENCE_SECONDS:  # which is on the first machine
                self._lost = "the first process"
            if self._lost:
                self._leave(self._lost)

    def finish(self) -> None:
        """Waits for both threads: one that is within the store when Python ends would abort the process."""
        self.join(SECONDS_TO_FINISH)
        if self._beating.ident is not None:
            self._beating.join(SECONDS_TO_FINISH)

    def _beat(self) -> None:
        """In a thread of its own, for the store's operations may wait for ever if its process was stopped."""
        is_end = False
        with suppress(RuntimeError):  # the connection is lost
            while not is_end:
                is_end = self.end.wait(BEAT_SECONDS)
                self._talk(self._store, GOODBYE if is_end and self.is_good else str(self._num_beats))
                self._num_beats += 1

    def _talk(self, store: TCPStore, ours: str) -> None:
        lost, following, first = self._key(LOST), self._key(self._next), self._key(0)
        store.set(self._key(self._rank), ours)
        if store.check([following]):
            self._news = store.get(following).decode()
        if store.check([first]):
            self._first_is_done = store.get(first) == GOODBYE.encode()
        if self._lost:
            store.set(lost, self._lost)
        elif store.check([lost]):
            self._lost = store.get(lost).decode()

    def _leave(self, lost: str) -> None:
        """The main thread waits in an operation from which nothing else can call it."""
        sentence = f"a2video: rank {self._rank}: {lost} of this run gives no sign of life for {PATIENCE_SECONDS:g} s"
        print(f"{sentence}: {GO_ON}", file=sys.stderr, flush=True)
        time.sleep(2 * BEAT_SECONDS)  # for the others, should the store end with this process
        os._exit(1)

    def _key(self, name: int | str) -> str:
        return f"a2video/{self._name}/{name}"


def _store() -> TCPStore | None:
    """A connection of our own, as torch's may be waiting; None where it cannot be had."""
    with suppress(RuntimeError, ValueError):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=SECONDS_TO_CONNECT))
    return None


def lost_connection(error: BaseException) -> str | None:
    """A sentence where an error of torch's says that another process has gone; None where it says something else."""
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in OF_GLOO):
        return f"the connection to another process of this run is lost: {GO_ON}"
    return None
