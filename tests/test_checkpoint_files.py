from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from a2video.checkpoint_files import AtomicCheckpointIO, newest_finite, newest_whole, remove_parts
from a2video.errors import InputError


def content(number: float) -> dict:
    return {"a2video": {}, "state_dict": {"weight": torch.full((1000,), float(number))}}


def number_in(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["state_dict"]["weight"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with best.ckpt (number 1), last-1.ckpt (2) and last.ckpt (3)."""
    for number, name in enumerate(("best", "last", "last"), 1):
        AtomicCheckpointIO().save_checkpoint(content(number), tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (number, number))
    return tmp_path


@pytest.mark.parametrize(
    ("num_last", "kept"), [(1, ["last"]), (2, ["last", "last-1"]), (3, ["last", "last-1", "last-2"])]
)
@pytest.mark.parametrize("has_links", [True, False])
def test_the_last_are_kept(
    tmp_path: Path, num_last: int, kept: list[str], has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:

        def link(*args: object) -> None:
            raise OSError("not on this disk")

        monkeypatch.setattr(os, "link", link)
    writer = AtomicCheckpointIO(num_last)
    for number in range(5):
        writer.save_checkpoint(content(number), tmp_path / "last.ckpt")
        writer.save_checkpoint(content(-number), tmp_path / "best.ckpt")
    assert names(tmp_path) == sorted(f"{name}.ckpt" for name in ["best", *kept])
    assert [number_in(tmp_path / f"{name}.ckpt") for name in ["best", *kept]] == [-4, 4, 3, 2][: num_last + 1]


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow over 2000 bytes: not pytest's output either, where that is a file, so no longer than needed."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_what_was(three: Path) -> None:
    message = r"last\.ckpt cannot be written \(File too large\): make room"
    with pytest.raises(InputError, match=message), small_disk():
        AtomicCheckpointIO().save_checkpoint(content(4), three / "last.ckpt")
    assert names(three) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]
    assert [number_in(three / name) for name in ("last.ckpt", "last-1.ckpt")] == [3, 2]


@pytest.mark.parametrize("step", ["fsync", "link", "replace"])
def test_a_kill_leaves_what_was(three: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        monkeypatch.setattr(*((Path, "replace") if step == "replace" else (os, step)), die)
        AtomicCheckpointIO().save_checkpoint(content(4), three / "last.ckpt")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [number_in(three / name) for name in ("last.ckpt", "last-1.ckpt")] == [3, 2]
    assert len(names(three)) > 3
    remove_parts(three)
    assert names(three) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]


@pytest.mark.parametrize("num_last", [2, 3])
def test_a_save_after_a_kill_between_link_and_rename_shifts_nothing_twice(tmp_path: Path, num_last: int) -> None:
    writer = AtomicCheckpointIO(num_last)
    for number in range(1, 4):
        writer.save_checkpoint(content(number), tmp_path / "last.ckpt")
    writer._keep_older(tmp_path / "last.ckpt", tmp_path / ".last.ckpt.1.part")
    writer.save_checkpoint(content(4), tmp_path / "last.ckpt")
    kept = ["last.ckpt", "last-1.ckpt", "last-2.ckpt"][:num_last]
    assert names(tmp_path) == sorted(kept)
    assert [number_in(tmp_path / name) for name in kept] == [4, 3, 2][:num_last]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "truncated":
        data = data[:-100]
    elif how == "zeros":
        data[500:1500] = bytes(1000)
    else:
        data[data.index(torch.full((8,), number_in(path)).numpy().tobytes()) + 9] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["empty", "truncated", "zeros", "bit flip"])
def test_damage_is_noticed(three: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert newest_whole(three / "last.ckpt")[0].name == "last.ckpt"
    damage(three / "last.ckpt", how)
    path, found = newest_whole(three / "last.ckpt")
    assert path.name == "last-1.ckpt"
    assert found["state_dict"]["weight"][0] == 2
    damage(path, how)
    assert newest_whole(three / "last.ckpt")[0].name == "best.ckpt"
    damage(three / "best.ckpt", how)
    with pytest.raises(InputError, match=f"^all 3 checkpoints in {re.escape(str(three))} are damaged"):
        newest_whole(three / "last.ckpt")


def test_no_other_file_stands_in(three: Path) -> None:
    (three / "mine.ckpt").write_text("text")
    with pytest.raises(InputError, match=r"mine\.ckpt holds no plain data"):
        newest_whole(three / "mine.ckpt")
    (three / "last.ckpt").unlink()
    assert newest_whole(three / "last.ckpt")[0].name == "last-1.ckpt"


def test_newest_finite(three: Path) -> None:
    assert newest_finite(three) == three / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(float("nan")), three / "last.ckpt")
    assert newest_finite(three) == three / "last-1.ckpt"
    assert newest_finite(three / "none") is None
