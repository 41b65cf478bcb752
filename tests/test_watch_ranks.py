"""Ranks hear of each other's end; in real processes: tests/torture/test_lost_ranks.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from torch.distributed import TCPStore

from a2video import watch_ranks
from a2video.watch_ranks import _store, _Watch, lost_connection


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, str]]]:
    """(rank, whom it has lost) instead of the end of a process; three ranks share a store."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setattr(watch_ranks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(watch_ranks, "PATIENCE_SECONDS", 1.0)
    found: list[tuple[int, str]] = []

    def leave(watch: _Watch, lost: str) -> None:
        found.append((watch._rank, lost))
        time.sleep(0.5)  # for the others
        watch.end.set()

    monkeypatch.setattr(_Watch, "_leave", leave)
    yield found
    del store


def watches() -> list[_Watch]:
    found = [_Watch("a run", rank, 3, _store()) for rank in range(3)]
    for watch in found:
        watch.start()
    time.sleep(0.5)
    return found


@pytest.mark.parametrize("is_good", [True, False])
def test_who_ends_in_good_order_is_not_missed(left: list[tuple[int, str]], is_good: bool) -> None:
    first, second, third = watches()
    second.is_good = is_good
    second.end.set()
    for watch in (first, third):
        watch.join(1.5 if is_good else 30)
        assert watch.is_alive() == is_good
    assert sorted(left) == ([] if is_good else [(0, "rank 1"), (2, "rank 1")])
    for watch in (first, third):
        watch.is_good = True
        watch.end.set()
        watch.join()


def test_what_says_that_a_connection_is_lost() -> None:
    gloo = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:14233."
    assert "the same command goes on, a fit with --ckpt_path last" in (lost_connection(RuntimeError(gloo)) or "")
    assert lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert lost_connection(ValueError("Connection closed by peer")) is None
