"""Jobs in processes of their own: results, exceptions, crashes, hangs, and nothing left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA_PREP = Path(__file__).resolve().parents[1] / "data_prep"
sys.path.insert(0, str(DATA_PREP))
from jobs import Failure, run_jobs  # noqa: E402

from a2video.errors import InputError  # noqa: E402


def work(job: str) -> str | None:
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif job == "raise":
        raise KeyError("no such thing")
    elif job == "refuse":
        raise InputError("a.mp4: is no video")
    elif job == "leave":
        os._exit(3)
    elif job == "hold the lock":
        ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock, as a decoder may
    elif job == "sleep":
        time.sleep(60)
    elif job == "nothing":
        return None
    elif job == "who":
        return str(os.getpid())
    return job.upper()


def test_every_job_has_an_outcome_whatever_happens() -> None:
    jobs = ["a", "crash", "b", "raise", "hold the lock", "refuse", "c", "leave", "nothing", "d"]
    start = time.monotonic()
    outcomes = dict(run_jobs(work, jobs, num_workers=2, time_limit_seconds=0.5))
    assert time.monotonic() - start < 30
    assert outcomes == {
        "a": "A",
        "b": "B",
        "c": "C",
        "d": "D",
        "nothing": None,
        "crash": Failure("killed its process with signal 11 (SIGSEGV)"),
        "raise": Failure("KeyError: 'no such thing'"),
        "refuse": Failure("a.mp4: is no video"),
        "leave": Failure("ended its process with status 3"),
        "hold the lock": Failure("takes longer than 0.5 s"),
    }


def test_a_worker_serves_many_jobs_and_jobs_are_taken_as_needed() -> None:
    taken: list[str] = []

    def jobs() -> Iterator[str]:
        for _ in range(6):
            taken.append("who")
            yield "who"

    runner = run_jobs(work, jobs(), num_workers=2, time_limit_seconds=30)
    pids = [next(runner)[1]]
    assert len(taken) == 2
    pids += [result for _, result in runner]
    assert len(pids) == 6
    assert len(set(pids)) <= 2


def test_no_jobs() -> None:
    assert list(run_jobs(work, [], num_workers=2, time_limit_seconds=1)) == []


def test_closing_the_iterator_ends_the_processes() -> None:
    runner = run_jobs(work, ["who", "sleep", "sleep"], num_workers=2, time_limit_seconds=60)
    pid = int(next(runner)[1])  # type: ignore[arg-type]
    runner.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


MAIN = """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it

import sys, time
sys.path[:0] = {path!r}
from jobs import run_jobs
from test_jobs import work

if __name__ == "__main__":
    for job, result in run_jobs(work, ["who", "who", "sleep", "sleep"], 2, 60):
        print(result, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_main_one(tmp_path: Path, number: int) -> None:
    script = tmp_path / "main.py"
    script.write_text(MAIN.format(path=[str(DATA_PREP), str(Path(__file__).parent), str(DATA_PREP.parent)]))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(2)}
        time.sleep(0.2)
        process.send_signal(number)
        process.wait(10)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
