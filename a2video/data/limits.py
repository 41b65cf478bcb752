"""What bounds a process that others depend on: how much memory it may take, and that it ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

GIB = 2**30
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>: the signal to get when the parent dies


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory, or what the container's limit leaves of them."""
    has_names = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if has_names else 0
    limits = [numbers(cgroups / name, 1) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([memory, *(limit[0] for limit in limits if limit and limit[0] > 0)])


def numbers(path: Path, count: int) -> tuple[int, ...] | None:
    """The whole numbers in a file of the kernel's; None if there are no such."""
    try:
        found = tuple(int(word) for word in path.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # `max` is no number: no limit
        return None
    return found if len(found) == count else None


def share_of_memory(num_workers: int) -> int:
    """Bytes for each of so many workers and, together, for all else on this machine; 0 where it cannot be told."""
    return usable_memory() // (num_workers + 1)


def limit_memory(num_bytes: int) -> None:
    """From now on this process cannot allocate more than so many bytes: it gets errors instead.

    Linux alone can do that; elsewhere nothing changes. What processes share, such as batches, does not count, nor does
    what is there already.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # data and stack
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = pages * resource.getpagesize() + num_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def die_with_parent() -> None:
    """Lets the kernel, where it can, end this process with the thread that has started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
