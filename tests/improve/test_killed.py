"""SIGKILL in the middle of a search, of a reading and of a preference: what was finished stands, and the end is the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.base.files import files_below, sha256_of_file
from genwright.data.files import write_rows
from genwright.data.formats import Row
from genwright.improve.climbing import climb_project
from genwright.improve.workshop import Workshop

MOMENTS = {
    "prompt-search": ("trials/*.json", 3),
    "lora-search": ("trials/*.json", 2),
    "pre-training": ("lessons/reading/measured.json", 1),
    "preference": ("lessons/answers/*.json", 2),
}
"""Rung -> (files that are each written once, how many must stand when the kill comes)."""


def kill_when(rung: Path, climb: Callable[[], Any], pattern: str, count: int) -> dict[Path, int]:
    """Climb in another process and kill it when so many files stand; returns when each of them was written."""
    child = multiprocessing.get_context("fork").Process(target=climb)
    child.start()
    deadline = time.monotonic() + 60
    while len(list(rung.glob(pattern))) < count and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return {path: path.stat().st_mtime_ns for path in rung.glob(pattern)}


def made_by(folder: Path) -> dict[str, str]:
    """The hashes of what a rung left that answers, and of what it chose by."""
    kinds = ("adapter", "model", "trials")
    paths = [
        path for path in files_below(folder) if path.relative_to(folder).parts[0] in kinds or path.name == "pairs.jsonl"
    ]
    return {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for path in paths if "checkpoints" not in path.parts and path.name != "README.md"
    }  # fmt: skip


@pytest.mark.parametrize("rung", MOMENTS)
def test_what_was_finished_is_not_made_again(
    rung: str, shop: Callable[..., Workshop], unplanned: None, tmp_path: Path
) -> None:
    write_rows(tmp_path / "text.jsonl", [Row(kind="text", text=f"the red house number {n}") for n in range(8)])
    settings = (f'adapt.ladder=["{rung}"]', "adapt.steps=4", "adapt.checkpoint_every=1", "scope.target=101.0")
    pattern, count = MOMENTS[rung]
    folder = tmp_path / "made" / rung
    kept = kill_when(folder, lambda: climb_project(shop(*settings)), pattern, count)
    assert not (folder / "attempt.json").exists(), "the kill came too late"
    climb_project(shop(*settings))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "something finished was made again"
    cut = made_by(folder)
    (tmp_path / "made").rename(tmp_path / "cut")
    (tmp_path / "made").mkdir()
    climb_project(shop(*settings))
    assert made_by(folder) == cut and cut
