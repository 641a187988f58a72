"""What processes use of the processor, read from /proc. Elsewhere nothing is told: 0 seconds, no children."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TOLD = Path("/proc/self/stat").exists()
"""Whether this machine tells."""


def cpu_seconds(pid: int | None) -> float:
    """CPU time of a process so far; 0 for one that is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int | None) -> int:
    """Memory that a process holds; 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """Of any of its threads."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass
    return found


def family(pid: int) -> list[int]:
    """The process and everything below it, parents first."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def leaves(pid: int) -> list[int]:
    """Those of a family that have no child: of a server that hands its work on, the ones that compute."""
    below = children(pid)
    return [one for child in below for one in leaves(child)] if below else [pid]


class CpuTime:
    """CPU seconds of processes that come and go: what the gone ones used still counts, so the sum never falls."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._gone = 0.0

    def of(self, pids: Iterable[int]) -> float:
        """The sum so far, with `pids` as those that run now."""
        now = {pid: max(cpu_seconds(pid), self._last.get(pid, 0.0)) for pid in pids}
        self._gone += sum(seconds for pid, seconds in self._last.items() if pid not in now)
        self._last = now
        return self._gone + sum(now.values())
