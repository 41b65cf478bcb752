"""Ends a process of a run of several when another one is no more, instead of letting it wait for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta
from uuid import uuid4

import lightning.pytorch as pl
from torch.distributed import TCPStore  # type: ignore[attr-defined]

BEAT_SECONDS = 5.0
NUM_SILENT_BEATS = 8  # 40 s: with the time to tell the others, all end within a minute
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
    number in the store by which torch's processes have found each other, and looks at that of the next rank. Time in
    which this process did not run itself, as when a whole job is suspended, accuses nobody.
    """

    def __init__(self) -> None:
        self._thread: _Watch | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins to watch."""
        if trainer.world_size > 1 and "MASTER_PORT" in os.environ:
            name = trainer.strategy.broadcast(uuid4().hex)
            self._thread = _Watch(name, trainer.global_rank, trainer.world_size)
            self._thread.start()

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
            self._thread = None


class _Watch(threading.Thread):
    """Gives signs of life and looks for those of the next rank.

    Args:
        name: of this run, the same on all ranks.
        rank: of this process.
        world: number of ranks.
    """

    def __init__(self, name: str, rank: int, world: int) -> None:
        super().__init__(daemon=True)
        self.end = threading.Event()
        self.is_good = False  # whether the end is in good order
        self._name, self._rank, self._next = name, rank, (rank + 1) % world
        self._number = 0
        self._seen = b""
        self._num_silent = 0
        self._num_alone = 0  # beats without the store, which a process of the first machine has

    def run(self) -> None:
        """Until the end of the run or of another rank."""
        store: TCPStore | None = None
        while not self.end.wait(BEAT_SECONDS):
            try:
                store = store or _store()
                lost = self._beat(store)
                self._num_alone = 0
            except RuntimeError:
                store, self._num_alone = None, self._num_alone + 1
                lost = "the first process" if self._num_alone >= NUM_SILENT_BEATS else ""
            if lost and not self.end.is_set():
                self._leave(lost)
        if self.is_good and store is not None:
            store.set(self._key(self._rank), GOODBYE)

    def _beat(self, store: TCPStore) -> str:
        """Who is lost, if anyone."""
        self._number += 1
        store.set(self._key(self._rank), str(self._number))
        if store.check([self._key(LOST)]):
            return store.get(self._key(LOST)).decode()
        key = self._key(self._next)
        news = store.get(key) if store.check([key]) else b""
        self._num_silent = 0 if news == GOODBYE.encode() or news != self._seen else self._num_silent + 1
        self._seen = news
        if self._num_silent < NUM_SILENT_BEATS:
            return ""
        store.set(self._key(LOST), f"rank {self._next}")
        return f"rank {self._next}"

    def _leave(self, lost: str) -> None:
        """The main thread waits in an operation from which nothing else can call it."""
        seconds = NUM_SILENT_BEATS * BEAT_SECONDS
        sentence = f"a2video: rank {self._rank}: {lost} of this run has given no sign of life for {seconds:g} s"
        print(f"{sentence}: {GO_ON}", file=sys.stderr, flush=True)
        time.sleep(2 * BEAT_SECONDS)  # for the others, should the store end with this process
        os._exit(1)

    def _key(self, name: int | str) -> str:
        return f"a2video/{self._name}/{name}"


def _store() -> TCPStore:
    """A connection of our own, as torch's may be waiting."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=BEAT_SECONDS))


def lost_connection(error: BaseException) -> str | None:
    """A sentence where an error of torch's says that another process has gone; None where it says something else."""
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in OF_GLOO):
        return f"the connection to another process of this run is lost: {GO_ON}"
    return None
