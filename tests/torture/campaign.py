"""The campaign of faults: how one is tried in real processes, and what is written down of it."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import REPOSITORY

HARMFUL = Path(__file__).with_name("harmful.py")
TINY = ["--model.network=tiny_network.TinyNetwork", "--model.network.num_classes=2"]
QUIET = ["--trainer.enable_progress_bar=false"]
NOTES = "A2VIDEO_TORTURE"  # the variable with the folder for what came out
Test = Callable[..., None]


def fault(name: str, before: str, now: str, lost: str = "nothing", quick: bool = False) -> Callable[[Test], Test]:
    """Makes a test one of the campaign.

    Args:
        name: of the fault; {parameters} of the test are filled in.
        before: what happened before the campaign, at commit 2b91995.
        now: what the test sees to.
        lost: of what had been reported as saved.
        quick: whether it is among the default tests too.
    """

    def mark(test: Test) -> Test:
        @functools.wraps(test)
        def tried(**given: Any) -> None:
            start = time.monotonic()
            row = {"fault": name.format(**given), "before": before.format(**given), "now": now, "lost": lost}
            outcome = {"now": "FAILED", "lost": "?"}
            try:
                test(**given)
                outcome = {}
            except pytest.skip.Exception as reason:
                outcome = {"now": f"not tried: {reason}", "lost": "?"}
                raise
            finally:
                end_all()
                note({**row, **outcome, "seconds": time.monotonic() - start})

        return tried if quick else pytest.mark.torture(tried)

    return mark


def note(row: dict[str, Any]) -> None:
    """Writes down what came out, if anyone wants to know."""
    if folder := os.environ.get(NOTES):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{time.time_ns()}.json").write_text(json.dumps(row))


class Running:
    """A command in a session of its own, so that all its processes can be found.

    Args:
        command: of a2video, or the path of a program with its options.
        folder: to run in; its output goes to a file there.
        environment: more variables.
    """

    started: ClassVar[list[Running]] = []

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        number = len(list(folder.glob("log *.txt")))
        self.log, self.ready = folder / f"log {number}.txt", folder / f".ready {number}"
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "A2VIDEO_READY": str(self.ready)}
        program = [] if command[0].endswith(".py") or command[0] == "-m" else [str(HARMFUL)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *command],
                cwd=folder, env={**env, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(self)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def last_line(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def is_stopped(self) -> bool:
        """Whether it got SIGSTOP."""
        return _state_and_session(Path(f"/proc/{self.process.pid}"))[0] == "T"

    def wait_for(self, happened: Callable[[], Any], seconds: float = 120) -> None:
        """Until something has happened or the command has ended."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and not happened():
            assert time.monotonic() < end, self.text
            time.sleep(0.01)

    def signal_all(self, number: int) -> None:
        """As a terminal does for Ctrl-C."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, seconds: float = 240) -> int:
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal_all(signal.SIGKILL)
            raise AssertionError(f"it still ran after {seconds} s:\n{self.text}") from None

    def left(self, seconds: float = 3) -> list[str]:
        """The processes of its that are there after some seconds, all of which are killed."""
        end = time.monotonic() + seconds
        while (found := _session(self.process.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return list(found.values())


def end_all() -> None:
    """Ends what a test that failed has left."""
    while Running.started:
        running = Running.started.pop()
        running.left(0)
        running.process.wait()


def _state_and_session(folder: Path) -> tuple[str, str]:
    state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
    return state, session


def _session(leader: int) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, session = _state_and_session(folder)
            if int(session) == leader and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def fit(config: Path, out: Path, *options: str) -> list[str]:
    """The command that trains the tiny network."""
    return ["fit", "--config", str(config), *TINY, *QUIET, f"--trainer.default_root_dir={out}", *options]


def scores(config: Path, trained: Path, out: Path, *options: str) -> list[str]:
    """The command that tests the best checkpoint of a training."""
    checkpoint = f"--ckpt_path={trained / 'best.ckpt'}"
    return ["test", "--config", str(config), checkpoint, *QUIET, f"--trainer.default_root_dir={out}", *options]


def status(command: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """The exit status of a command, and what it printed; nothing of it is left."""
    running = Running(command, folder, **environment)
    code = running.end()
    assert running.left() == []
    return code, running.text


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size, in memory; the test is skipped where it may not be mounted."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", str(folder)], check=True)


def fill(folder: Path, but_kilobytes: int = 0) -> Path:
    """Fills a disk but for some kilobytes; the file that does it."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    os.truncate(ballast, max(0, ballast.stat().st_size - 1024 * but_kilobytes))
    return ballast


def lines_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, all of which must be whole."""
    text = table.read_text(encoding="utf-8")
    assert text.endswith("\n")
    rows = list(csv.DictReader(text.splitlines()))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows
