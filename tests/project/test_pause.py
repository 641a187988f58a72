"""Asking the holder of the lock to stop, and what is said when there is none or when it does not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from genwright.base.errors import BadRequest, Busy
from genwright.project.pause import pause

HOLD = """
import signal, sys, time
from pathlib import Path
from genwright.project.apply import locked
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "deaf" else lambda *_: sys.exit(0))
with locked(Path(sys.argv[1]) / ".genwright"):
    (Path(sys.argv[1]) / "held").touch()
    time.sleep(60)
"""


def holder(base: Path, kind: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(base), kind])
    until = time.monotonic() + 30
    while not (base / "held").exists() and time.monotonic() < until:
        time.sleep(0.01)
    return process


def test_the_holder_is_asked_and_waited_for(tmp_path: Path) -> None:
    process = holder(tmp_path, "willing")
    assert pause(tmp_path, wait_seconds=120) == process.pid
    assert process.wait(timeout=30) == 0


def test_one_that_does_not_stop_is_named(tmp_path: Path) -> None:
    process = holder(tmp_path, "deaf")
    try:
        with pytest.raises(Busy, match=rf"Process {process.pid} was asked to stop and has not yet"):
            pause(tmp_path, wait_seconds=0.2)
    finally:
        process.kill()
        process.wait()


def test_a_lock_that_a_killed_run_left_is_no_run(tmp_path: Path) -> None:
    """The file stays when a process is killed, with its id; that id may be anybody's by now and gets no signal."""
    process = holder(tmp_path, "deaf")
    process.kill()
    process.wait()
    assert (tmp_path / ".genwright" / "lock").exists()
    with pytest.raises(BadRequest, match="Nothing runs in this project"):
        pause(tmp_path, wait_seconds=1)


def test_a_project_that_never_ran(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing to pause"):
        pause(tmp_path, wait_seconds=1)
