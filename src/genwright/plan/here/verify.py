"""What a process really held, and how long it took, while something ran: the measured side of every plan."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.02


@dataclass
class Measured:
    """Filled while the block runs: seconds of wall time, and the process's highest resident bytes."""

    seconds: float = 0.0
    peak_bytes: int = 0
    start_bytes: int = 0
    samples: int = field(default=0, repr=False)


def resident_bytes() -> int:
    """Bytes of this process that are in memory now; 0 where the system does not say (/proc)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def release_freed_memory() -> None:
    """Give freed memory back to the system, so that one phase's leftovers are not counted in the next one's peak."""
    gc.collect()
    name = ctypes.util.find_library("c")
    if name and hasattr(library := ctypes.CDLL(name), "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def measuring() -> Iterator[Measured]:
    """Sample the resident bytes every 20 ms while the block runs."""
    release_freed_memory()
    measured = Measured(start_bytes=resident_bytes())
    measured.peak_bytes = measured.start_bytes
    finished = threading.Event()

    def sample() -> None:
        while not finished.wait(SAMPLE_SECONDS):
            measured.peak_bytes = max(measured.peak_bytes, resident_bytes())
            measured.samples += 1

    thread = threading.Thread(target=sample, daemon=True)
    began = time.perf_counter()
    thread.start()
    try:
        yield measured
    finally:
        measured.peak_bytes = max(measured.peak_bytes, resident_bytes())
        measured.seconds = time.perf_counter() - began
        finished.set()
        thread.join()
