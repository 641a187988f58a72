"""A program of others that ends when we do: `python watched.py PROGRAM ARGUMENT ...`, with a pipe of ours as standard input.

It runs the program, and when the pipe ends (we were killed, or closed it) it asks the program to end, waits, and kills what is
left of the process group. When the program ends by itself, what it had started ends with it. Needs nothing but Python.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

POLITE = 2.0
"""Seconds between asking and killing; less than those of the process that asks us."""

PR_SET_PDEATHSIG = 1


def follow_the_parent() -> None:
    """Linux: the program is killed with the watcher, should the watcher itself be killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_at_the_end_of_input(child: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the pipe, then end the program."""
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(POLITE)
    except subprocess.TimeoutExpired:
        child.kill()


def main() -> None:
    """Run the program to its end. We are the leader of a group that holds all of its processes: the last act ends them."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=follow_the_parent)
    threading.Thread(target=end_at_the_end_of_input, args=(child,), daemon=True).start()
    code = child.wait()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    sys.exit(code)


if __name__ == "__main__":
    main()
