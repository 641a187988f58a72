"""What runs in the processes of test_launch.py: meetings, deaths and waiting, with nothing that is slow to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from genwright.base.errors import RecipeError


def told(argument: dict[str, Any]) -> dict[str, Any]:
    """What a worker knows of itself, and a sum over all of their numbers."""
    number = torch.tensor(float(torch.distributed.get_rank()))
    torch.distributed.all_reduce(number)
    return {
        "rank": torch.distributed.get_rank(), "argument": argument["number"], "sum": int(number), "threads": os.environ["OMP_NUM_THREADS"],
    }  # fmt: skip


def dies(argument: dict[str, Any]) -> None:
    """One rank ends in the way that is asked; the other waits for it in a meeting."""
    rank = torch.distributed.get_rank()
    Path(argument["folder"], str(rank)).write_text(str(os.getpid()))
    torch.distributed.barrier()
    if rank == argument["rank"]:
        if argument["how"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if argument["how"] == "sleeps":
            time.sleep(600)
        if argument["how"] == "refuses":
            raise RecipeError("It does not go.", wanted="this", found="that", do="other")
        raise ValueError("no such thing")
    torch.distributed.barrier()


def waits(folder: str) -> None:
    """Until it is told to end; then it leaves a file, as training would a checkpoint."""
    stop = []

    def told_to_end(_: int, __: FrameType | None) -> None:
        stop.append(True)

    signal.signal(signal.SIGTERM, told_to_end)
    rank = torch.distributed.get_rank()
    Path(folder, f"pid-{rank}").write_text(str(os.getpid()))
    while not stop:
        time.sleep(0.02)
    Path(folder, f"saved-{rank}").touch()
