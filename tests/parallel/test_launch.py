"""Workers of one machine: what they return, how they die, and who is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import Interrupted, RecipeError, WorkerDied


def test_each_rank_gets_the_argument_and_they_can_add_up(launched: Callable[..., list[Any]]) -> None:
    found = launched(2, "meetings:told", {"number": 5})
    assert [(one["rank"], one["argument"], one["sum"]) for one in found] == [(0, 5, 1), (1, 5, 1)]
    assert {one["threads"] for one in found} == {"1"}


def test_a_worker_that_dies_ends_the_others_and_is_named(launched: Callable[..., list[Any]], tmp_path: Path) -> None:
    """Rank 0 waits for rank 1 and would wait for ever."""
    with pytest.raises(WorkerDied, match=r"Process 1 of 2(.|\n)*exit code 1(.|\n)*ValueError: no such thing") as caught:
        launched(2, "meetings:dies", {"rank": 1, "how": "raises", "folder": str(tmp_path)})
    assert "run again" in str(caught.value)
    assert not any(alive(int(path.read_text())) for path in tmp_path.iterdir())


def test_a_worker_that_is_killed_is_named(launched: Callable[..., list[Any]], tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"Process 0 of 2(.|\n)*signal SIGKILL(.|\n)*memory"):
        launched(2, "meetings:dies", {"rank": 0, "how": "killed", "folder": str(tmp_path)})
    assert not any(alive(int(path.read_text())) for path in tmp_path.iterdir())


def test_our_own_errors_come_through_as_they_are(launched: Callable[..., list[Any]], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"does not go(.|\n)*wanted: this(.|\n)*found:  that(.|\n)*do:     other"):
        launched(2, "meetings:dies", {"rank": 1, "how": "refuses", "folder": str(tmp_path)})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_parent_reaches_the_workers(number: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM is passed on and they end in their own way; a parent that is killed takes them with it."""
    parent = start_parent(tmp_path)
    try:
        pids = wait_for(lambda: [int(text) for path in tmp_path.glob("pid-*") if (text := path.read_text())], 2)
        parent.send_signal(number)
        parent.wait(30)
        wait_for(lambda: [pid for pid in pids if not alive(pid)], 2)
    finally:
        parent.kill()
        parent.communicate()
    assert len(list(tmp_path.glob("saved-*"))) == (2 if number == signal.SIGTERM else 0)


def test_workers_that_end_because_they_were_told_to_are_an_interruption(
    launched: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """They do not handle the signal, as in the seconds before training begins."""

    def interrupt() -> None:
        wait_for(lambda: [int(path.name) for path in tmp_path.iterdir()], 2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted, match=r"Stopped on request(.|\n)*run again"):
        launched(2, "meetings:dies", {"rank": 0, "how": "sleeps", "folder": str(tmp_path)})
    thread.join()


def start_parent(folder: Path) -> subprocess.Popen[bytes]:
    code = f"from genwright.parallel import launch; launch.run(2, 'meetings:waits', {str(folder)!r}, threads=1)"
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)})


def wait_for(look: Callable[[], list[int]], number: int) -> list[int]:
    for _ in range(1200):
        if len(found := look()) == number:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{found} after a minute")


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except (FileNotFoundError, ProcessLookupError):
        return False
