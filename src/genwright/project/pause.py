"""Asking a running apply to save and stop, from another process."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path

from genwright.base.errors import BadRequest, Busy
from genwright.project.apply import FOLDER

ASK_AGAIN_SECONDS = 0.1


def pause(base: Path, *, wait_seconds: float) -> int:
    """Send SIGTERM to the apply that holds the project and wait until it has let go. Returns its process id.

    The kernel holds the lock for as long as that process lives, so the id in it cannot be another's. Errors: BadRequest
    where nothing runs; Busy where it has not stopped in time: it was asked, and will.
    """
    lock = base / FOLDER / "lock"
    holder = _holder(lock)
    if holder is None:
        raise BadRequest(
            "Nothing runs in this project, so there is nothing to pause.", do="`genwright status` says where it stands"
        )
    os.kill(holder, signal.SIGTERM)
    until = time.monotonic() + wait_seconds
    while _holder(lock) == holder:
        if time.monotonic() > until:
            raise Busy(
                f"Process {holder} was asked to stop and has not yet.", found=f"still at work after {wait_seconds:g} s",
                do="wait: it stops at the end of its step; or give more time with --wait",
            )  # fmt: skip
        time.sleep(ASK_AGAIN_SECONDS)
    return holder


def _holder(lock: Path) -> int | None:
    """The process that holds the lock; None where none does."""
    try:
        with lock.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _written(lock)
    return None


def _written(lock: Path) -> int | None:
    """Whom the lock names. It is written just after it is taken, so one that is empty is read again."""
    for _ in range(20):
        try:
            return int(json.loads(lock.read_text(encoding="utf-8"))["pid"])
        except (ValueError, KeyError, TypeError):
            time.sleep(ASK_AGAIN_SECONDS)
    return None
