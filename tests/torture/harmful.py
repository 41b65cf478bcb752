"""The command `a2video` with faults that no file can have: python harmful.py fit ...; the environment says which.

Videos whose names begin with `hang` hold the GIL for ever when they are opened, `crash` is a segmentation fault, and
`grow` takes memory without end. A2VIDEO_FAULT="RANK MODULE:FUNCTION NUMBER SIGNAL" has the process of that rank send
itself a signal in the given call of a function, but not again when torchrun starts it again. A2VIDEO_CLOCK=SECONDS lets
the clock jump: so much later for 50 calls of time.time and its like, back for 50, and so on. A2VIDEO_MEMORY=GIB is the
memory that the machine is said to have. A2VIDEO_READY=FILE is made when the command begins.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

ENOUGH = 6 << 30  # bytes at which growing ends, lest a missing limit hurts the machine


def harm_readers() -> None:
    from a2video.data.pyav_reader import PyAVReader

    begin = PyAVReader.__init__

    def begin_or_harm(self: Any, path: Any, *rest: Any) -> None:
        name = Path(path).name
        if name.startswith("hang"):
            ctypes.PyDLL(None).sleep(1000)
        if name.startswith("crash"):
            ctypes.string_at(0)
        if name.startswith("grow"):
            _grow()
        begin(self, path, *rest)

    PyAVReader.__init__ = begin_or_harm  # type: ignore[method-assign]


def _grow() -> None:
    held = []
    while sum(map(len, held)) < ENOUGH:
        held.append(bytearray(b"x") * (64 << 20))
    os.abort()


def signal_in(rank: str, place: str, number: str, name: str) -> None:
    numbers = (os.environ.get(variable, "0") for variable in ("RANK", "NODE_RANK", "LOCAL_RANK"))
    if rank != max(numbers):
        return
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, function = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, count = getattr(owner, function), itertools.count(1)

    def signalling(*arguments: Any, **named: Any) -> Any:
        if next(count) == int(number):
            os.kill(os.getpid(), signal.Signals[name])
        return original(*arguments, **named)

    setattr(owner, function, signalling)


def shake_clock(jump: float) -> None:
    now, now_ns, count = time.time, time.time_ns, itertools.count()
    time.time = lambda: now() + jump * (next(count) // 50 % 2)
    time.time_ns = lambda: now_ns() + int(1e9 * jump) * (next(count) // 50 % 2)


if __name__ == "__main__":
    from a2video.cli import main
    from a2video.data import limits

    harm_readers()
    if "A2VIDEO_FAULT" in os.environ and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        signal_in(*os.environ["A2VIDEO_FAULT"].split())
    if "A2VIDEO_CLOCK" in os.environ:
        shake_clock(float(os.environ["A2VIDEO_CLOCK"]))
    if "A2VIDEO_MEMORY" in os.environ:
        limits.usable_memory = lambda: int(os.environ["A2VIDEO_MEMORY"]) << 30
    if "A2VIDEO_READY" in os.environ:
        Path(os.environ["A2VIDEO_READY"]).touch()
    main()
