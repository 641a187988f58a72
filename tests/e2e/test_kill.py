"""Killed at any moment and run again, `apply` ends with the same adapter, byte for byte.

Also: SIGTERM saves and exits with 130; a damaged checkpoint is named, set aside, and the one before it is used.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genwright.base.events import read_events
from genwright.base.files import sha256_of_file


@pytest.fixture(scope="module")
def uninterrupted(
    short_project: Path, genwright: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[float, dict]:
    """(seconds, hashes of the adapter's files) of a run that nothing disturbed."""
    project = Path(shutil.copytree(short_project, tmp_path_factory.mktemp("uninterrupted") / "project"))
    began = time.monotonic()
    done = genwright(project, "apply")
    assert done.code == 0, done.told
    return time.monotonic() - began, adapter_of(project)


def adapter_of(project: Path) -> dict[str, str]:
    """SHA-256 of every file of the published adapter."""
    found = [path for path in (project / ".genwright").rglob("adapter_model.safetensors") if is_published(path)]
    assert found, "no adapter was published"
    return {file.name: sha256_of_file(file) for file in sorted(found[0].parent.iterdir())}


def is_published(path: Path) -> bool:
    """In the artifact of the stage adapt: neither work in progress nor the copy handed over."""
    parts = path.parts[path.parts.index(".genwright") + 1 :]
    return "adapt" in parts and "work" not in parts and not any(part.startswith(".") for part in parts)


@contextmanager
def applying(project: Path, home: Path) -> Iterator[subprocess.Popen]:
    """`genwright apply` in the background, in a process group of its own."""
    one_thread = {"HOME": str(home), "GENWRIGHT_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **one_thread}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-m", "genwright", "--project", str(project), "apply"]
    process = subprocess.Popen(words, env=environment, start_new_session=True, **quiet)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for_event(project: Path, kind: str, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if sum(event["kind"] == kind for event in read_events(project / ".genwright" / "events.jsonl")) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} events of kind {kind} came")


def kill_after(project: Path, home: Path, seconds: float) -> bool:
    """Whether the kill came before the run was over."""
    with applying(project, home) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
    return False


def check_moment(
    share: float, project: Path, home: Path, uninterrupted: tuple[float, dict], genwright: Callable
) -> None:
    seconds, adapter = uninterrupted
    kill_after(project, home, share * seconds)
    done = genwright(project, "apply")
    assert done.code == 0, done.told
    assert adapter_of(project) == adapter
    assert not leftovers(project), "a killed run left half-written files behind"


def leftovers(project: Path) -> list[Path]:
    """Folders that a finished run should have tidied away."""
    return [path for path in (project / ".genwright").rglob("checkpoints") if any(path.iterdir())]


@pytest.mark.parametrize("share", [0.55, 0.8])
def test_kill_at_two_moments(share, project, home, uninterrupted, genwright) -> None:
    check_moment(share, project, home, uninterrupted, genwright)


MOMENTS = [(index + random.Random(2026).random()) / 20 for index in range(20)]
"""One random moment in each twentieth of the run."""


@pytest.mark.proof
@pytest.mark.parametrize("share", MOMENTS)
def test_kill_at_twenty_moments(share, project, home, uninterrupted, genwright) -> None:
    check_moment(share, project, home, uninterrupted, genwright)


def test_kill_between_checkpoints_then_a_damaged_one(project, home, uninterrupted, genwright) -> None:
    with applying(project, home) as process:
        wait_for_event(project, "checkpoint", 3, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    newest = sorted((project / ".genwright").rglob("step-*/optimizer.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = genwright(project, "apply")
    assert done.code == 0, done.told
    notes = [event["text"] for event in read_events(project / ".genwright" / "events.jsonl") if event["kind"] == "note"]
    assert any(newest.parent.name in note and "Set aside" in note for note in notes)
    assert any("resuming lora after step" in note for note in notes)
    assert adapter_of(project) == uninterrupted[1]


def test_sigterm_saves_and_exits_130(project, home, uninterrupted, genwright) -> None:
    with applying(project, home) as process:
        wait_for_event(project, "step", 6, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    steps = [event["step"] for event in read_events(project / ".genwright" / "events.jsonl") if event["kind"] == "step"]
    done = genwright(project, "apply")
    assert done.code == 0, done.told
    again = [event["step"] for event in read_events(project / ".genwright" / "events.jsonl") if event["kind"] == "step"]
    assert again == list(range(1, 25)) and again[: len(steps)] == steps, "no step was done twice, and none was left out"
    assert adapter_of(project) == uninterrupted[1]


def test_the_hash_sees_one_bit(tmp_path: Path) -> None:
    """The comparison above can fail."""
    folder = tmp_path / ".genwright" / "adapt" / "key" / "lora" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"\x00")
    before = adapter_of(tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(b"\x01")
    assert adapter_of(tmp_path) != before
