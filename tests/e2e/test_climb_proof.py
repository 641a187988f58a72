"""A real model climbs every kind of rung, is killed in each, repeats nothing that was finished, and reads the test rows last."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import command, environment
from tests.e2e.tiny import write_project

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
BEGUN = {
    "zero-shot": "", "few-shot": "", "prompt-search": "trials/*.json", "lora": "training/checkpoints/step-*",
    "full": "training/checkpoints/step-*", "pre-training": "lessons/reading/training/checkpoints/step-*",
    "preference": "lessons/answers/*.json",
}  # fmt: skip
"""Rung -> what stands in its folder in the middle of it."""
LADDER = tuple(BEGUN)
LISTENER = """
import os, sys

def listen(event, arguments):
    if event != "open" or not str(arguments[0]).endswith("/test.jsonl") or "w" in str(arguments[1] or "r"):
        return
    frame, callers = sys._getframe(), []
    while frame is not None:
        callers.append(frame.f_code.co_name)
        frame = frame.f_back
    if not {"sha256_of_file", "sync_file"} & set(callers):
        with open({heard!r}, "a") as heard:
            heard.write(" ".join(callers) + chr(10))

sys.addaudithook(listen)
"""
"""Put into each process before anything of ours: notes who opens the test rows, other than to hash or to sync the file."""

pytestmark = [pytest.mark.proof, pytest.mark.skipif(not STORIES.exists(), reason="the model stories260k is not here")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    write_project(folder, kind="chat", task="chat", family="decoder", method="lora", objective="")
    shutil.rmtree(folder / "model")
    shutil.copytree(STORIES, folder / "model")
    text = [json.dumps({"text": f"the boat number {n} is on the lake"}) for n in range(16)]
    (folder / "text.jsonl").write_text("\n".join(text) + "\n")
    own = (folder / "genwright.toml").read_text()
    own = own.replace(
        'method = "lora"', f"ladder = {json.dumps(LADDER)}\npairs = 20\nvalidation_rows = 4\ncheckpoint_every = 1"
    )
    own = own.replace("steps = 3", "steps = 6").replace("[data]", '[data]\ntext = "text.jsonl"')
    (folder / "genwright.toml").write_text(own.replace('task = "chat"', 'task = "chat"\ntarget = 101.0'))
    return folder


@pytest.fixture
def listened(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """(the environment of our processes, the file that says who opened the test rows)."""
    heard, site = tmp_path / "heard.txt", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(LISTENER.replace("{heard!r}", repr(str(heard))))
    own = environment(tmp_path / "home")
    return {**own, "PYTHONPATH": os.pathsep.join([str(site), own.get("PYTHONPATH", "")])}, heard


def under_way(project: Path, rung: str) -> bool:
    """Whether a rung was begun, and has left something to go on from where it leaves such things."""
    return any(project.glob(f".genwright/work/adapt/*/{rung}/{BEGUN[rung]}"))


def finished(project: Path) -> dict[str, tuple[int, bytes]]:
    """Finished rungs: when their last file was written, and what is in it."""
    files = project.glob(".genwright/work/adapt/*/*/attempt.json")
    return {file.parent.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def killed_in(project: Path, rung: str, environment: dict[str, str]) -> None:
    """Apply until a rung is under way, then SIGKILL."""
    words = command(project, "apply", "--until", "adapt", "--json")
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 600
        while not under_way(project, rung) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def told(project: Path, kind: str) -> Iterator[dict]:
    lines = (project / ".genwright" / "events.jsonl").read_text().splitlines()
    return (event for line in lines if (event := json.loads(line))["kind"] == kind)


def test_killed_in_every_rung_it_ends_and_repeats_none(project: Path, listened: tuple[dict[str, str], Path]) -> None:
    environment, heard = listened
    before: dict[str, tuple[int, bytes]] = {}
    for number, rung in enumerate(LADDER):
        killed_in(project, rung, environment)
        now = finished(project)
        assert rung not in now, "the kill came too late"
        assert set(now) == set(LADDER[:number]), "rungs are climbed in order"
        assert {name: now[name] for name in before} == before, "a finished rung was made again"
        before = now
    done = subprocess.run(
        command(project, "apply", "--until", "adapt", "--json"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert not heard.exists(), f"the test rows were read before evaluate: {heard.read_text()}"
    rungs = json.loads(done.stdout)["summaries"]["adapt"]["rungs"]
    assert [rung["name"] for rung in rungs] == list(LADDER) and not any(rung["skipped"] for rung in rungs)
    assert {rung["score"]["n"] for rung in rungs} == {3}, "the validation rows that there are, the same for each rung"
    assert all(rung["planned"]["seconds"] > 0 for rung in rungs), "the planner prices each rung"
    assert [event["rung"] for event in told(project, "measured") if event["stage"] == "adapt"] == list(LADDER)
    rest = subprocess.run(
        command(project, "apply", "--json"), env=environment, capture_output=True, text=True, check=False
    )
    assert rest.returncode == 3, rest.stderr
    assert "evaluate" in heard.read_text(), "the listener would have heard"
