"""`genwright pause`: a running apply saves and stops; what was trained so far can be talked to; apply goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.tiny import write_project

from genwright.base.events import read_events
from genwright.base.files import sha256_of_file

MANY = 5000
"""Steps: far more than this test waits for."""


def steps(project: Path) -> list[int]:
    return [event["step"] for event in read_events(project / ".genwright" / "events.jsonl") if event["kind"] == "step"]


@pytest.fixture(scope="module")
def paused(
    short_project: Path, home: Path, genwright: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, int, object]]:
    """(a project whose run was paused, the exit code of that run, what `pause` said)."""
    import shutil

    project = Path(shutil.copytree(short_project, tmp_path_factory.mktemp("paused") / "project"))
    settings = project / "genwright.toml"
    settings.write_text(settings.read_text().replace("steps = 24", f"steps = {MANY}"))
    environment = {**os.environ, "HOME": str(home), "GENWRIGHT_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "genwright", "--project", str(project), "apply"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=environment, start_new_session=True, **quiet) as process:
        try:
            until = time.monotonic() + 120
            while len(steps(project)) < 6 and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            done = genwright(project, "pause", "--json")
            yield project, process.wait(timeout=60), done
        finally:
            if process.poll() is None:
                process.kill()


def test_pause_says_where_and_the_run_exits_130(paused: tuple) -> None:
    project, code, done = paused
    assert done.code == 0, done.told
    assert code == 130
    assert done.json["stage"] == "adapt" and done.json["rung"] == "lora" and done.json["total"] == MANY
    assert done.json["step"] == steps(project)[-1] < MANY


def test_what_was_done_is_saved_to_the_last_step(paused: tuple) -> None:
    project, _, done = paused
    (newest,) = (project / ".genwright" / "work").rglob(f"step-{done.json['step']:06d}")
    state = json.loads((newest / "state.json").read_text())
    assert state["progress"]["steps"] == done.json["step"]
    assert (
        sha256_of_file(newest / "trained.safetensors")
        == json.loads((newest / "manifest.json").read_text())["trained.safetensors"]
    )


def test_a_paused_run_can_be_talked_to(paused: tuple, genwright_here: Callable) -> None:
    project, _, done = paused
    at = f"step {done.json['step']}"
    answers = [
        genwright_here(project, "chat", "--at", words, "--ask", "Summarise: it rained.") for words in (at, f"lora {at}")
    ]
    assert [answer.code for answer in answers] == [0, 0], answers[0].told
    assert answers[0].out == answers[1].out


def test_a_step_that_is_not_there_is_refused_with_those_that_are(paused: tuple, genwright_here: Callable) -> None:
    project, _, done = paused
    refused = genwright_here(project, "chat", "--at", "step 999999", "--ask", "x")
    assert refused.code == 2
    assert "There is no checkpoint of step 999999" in refused.err and f"lora step {done.json['step']}" in refused.err


def test_a_step_of_another_recipe_is_refused(paused: tuple, genwright_here: Callable) -> None:
    project, _, done = paused
    changed = genwright_here(
        project, "chat", "--at", f"step {done.json['step']}", "--ask", "x", "--set", "adapt.learning_rate=0.5"
    )
    assert changed.code == 1 and "another recipe" in changed.err


def test_nothing_to_pause_is_said(paused: tuple, genwright_here: Callable) -> None:
    project, _, _ = paused
    done = genwright_here(project, "pause")
    assert done.code == 2 and "Nothing runs in this project" in done.err


def test_a_finished_run_keeps_its_milestones(tmp_path: Path, genwright_here: Callable) -> None:
    """Of three steps the second was named: it can be talked to when the checkpoints are gone; the first cannot."""
    project = write_project(
        tmp_path, kind="chat", task="chat", family="decoder", method="lora", objective="", adapt="milestones = [2]\n"
    )
    done = genwright_here(project, "apply")
    assert done.code in (0, 3), done.told
    assert not list((project / ".genwright").rglob("checkpoints"))
    asked = genwright_here(project, "chat", "--at", "step 2", "--ask", "what colour is house number 3", "--json")
    assert asked.code == 0 and isinstance(asked.json["answer"], str), asked.told
    refused = genwright_here(project, "chat", "--at", "step 1", "--ask", "x")
    assert refused.code == 2 and "lora step 2" in refused.err and "adapt.milestones" in refused.err
