"""Saving while training goes on: the training thread only copies; another writes, hashes, syncs and renames.

At most one save is in flight. Its error is raised at the next step or at the end, never lost. What a save costs training is
its stall: the copy, and the wait for a save before it that is not done.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import distributed

from genwright.engine import checkpoint
from genwright.engine.build import Built
from genwright.engine.checkpoint import Checkpoint, Process, Snapshot


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on the disk, and what it cost."""

    step: int
    stall_seconds: float
    """Of training."""
    write_seconds: float
    """In the other thread, meanwhile."""


class Saver:
    """Saves one training into a folder; used as `with Saver(...) as saver`, which waits for the last save."""

    def __init__(
        self, root: Path, *, recipe: str, keep: int = checkpoint.KEEP, milestones: Collection[int] = (),
        parts: Collection[str] = (checkpoint.TRAINED, checkpoint.OPTIMIZER),
    ) -> None:  # fmt: skip
        self.root, self.recipe, self.keep, self.milestones, self.parts = root, recipe, keep, milestones, parts
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            checkpoint.sweep(root)  # before the others are told the word: they write as soon as they know it
        self.process = this_process()
        self._taken: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._done: list[Saved] = []

    def save(self, built: Built, *, step: int, state: Mapping[str, Any]) -> float:
        """Begin to save; returns the stall in seconds. Errors: that of the save before, such as DiskFull."""
        began = time.perf_counter()
        self._wait()
        self._taken = checkpoint.snapshot(
            built, step=step, recipe=self.recipe, state=state, process=self.process, parts=self.parts, over=self._taken
        )  # fmt: skip
        stall = time.perf_counter() - began
        self._thread = threading.Thread(target=self._write, args=(self._taken, stall), name="checkpoint", daemon=True)
        self._thread.start()
        return stall

    def finished(self) -> list[Saved]:
        """The saves that came to their end since this was last asked. Errors: that of one that failed."""
        if self._thread is not None and not self._thread.is_alive():
            self._wait()
        done, self._done = self._done, []
        return done

    def wait(self) -> list[Saved]:
        """`finished`, after waiting for the save in flight."""
        self._wait()
        return self.finished()

    def _write(self, taken: Snapshot, stall: float) -> None:
        began = time.perf_counter()
        try:
            checkpoint.write(self.root, taken, process=self.process, keep=self.keep, milestones=self.milestones)
            self._done.append(Saved(taken.step, stall, time.perf_counter() - began))
        except BaseException as error:  # carried to the training thread, where it can be told
            self._error = error

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the save in flight end. Its own error is raised unless there is one to tell already."""
        try:
            self._wait()
        except Exception:
            if error is None:
                raise


def this_process() -> Process:
    """Which of how many processes this is. Where there are several, all must ask at the same time: they agree on a word."""
    if not distributed.is_initialized():
        return Process()
    # Not from torch's generator: it is seeded, so two runs would agree on one word, and one is to be told from the other.
    word = torch.tensor([int.from_bytes(os.urandom(4), "big")], device=_device())
    distributed.broadcast(word, src=0)
    return Process(distributed.get_rank(), distributed.get_world_size(), f"{int(word):08x}")


def latest_for_all(root: Path, *, recipe: str, say: Callable[[str], Any]) -> Checkpoint | None:
    """`checkpoint.latest`; of several processes the first looks and proves, and all resume from what it found."""
    if not distributed.is_initialized():
        return checkpoint.latest(root, recipe=recipe, say=say)
    found = checkpoint.latest(root, recipe=recipe, say=say) if distributed.get_rank() == 0 else None
    step = torch.tensor([-1 if found is None else found.step], device=_device())
    distributed.broadcast(step, src=0)
    if int(step) < 0 or found is not None:
        return found
    folder = root / checkpoint.folder_name(int(step))
    return Checkpoint(folder, int(step), json.loads((folder / checkpoint.STATE).read_text(encoding="utf-8")))


def agreed(*values: bool) -> tuple[bool, ...]:
    """Each value is true for all processes where it is for one. Every process must ask, and after the same step."""
    if not distributed.is_initialized():
        return values
    wanted = torch.tensor(values, dtype=torch.int32, device=_device())
    distributed.all_reduce(wanted, op=distributed.ReduceOp.MAX)
    return tuple(map(bool, wanted.tolist()))


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
