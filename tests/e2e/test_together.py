"""A training in several processes ends where one process ends, and its project is none the wiser."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.e2e.conftest import command, environment
from tests.e2e.tiny import write_project

from genwright.base.events import read_events

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = [*folder.glob("full/model/model.safetensors"), *folder.glob("lora/adapter/adapter_model.safetensors")]
    return load_file(file)


def project(folder: Path, method: str, hardware: str, adapt: str = "") -> Path:
    folder.mkdir()
    more = f"learning_rate = 1e-2\n{adapt}[hardware]\n{hardware}\n"
    return write_project(folder, kind="chat", task="chat", family="decoder", method=method, objective="", adapt=more)


@pytest.mark.parametrize(("method", "strategy"), [("full", "zero3"), ("lora", "auto")])
def test_two_processes_end_where_one_does(
    method: str, strategy: str, tmp_path: Path, genwright: Callable, genwright_here: Callable
) -> None:
    alone = genwright_here(project(tmp_path / "alone", method, "count = 1"), "apply", "--json")
    both = genwright_here(project(tmp_path / "both", method, f'count = 2\nstrategy = "{strategy}"'), "apply", "--json")
    assert alone.code in (0, 3) and both.code in (0, 3), both.told
    one, two = (trained(Path(done.json["artifacts"]["adapt"])) for done in (alone, both))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4)
    steps = [
        event for event in read_events(tmp_path / "both" / ".genwright" / "events.jsonl") if event["kind"] == "step"
    ]
    assert [step["step"] for step in steps] == [1, 2, 3]


def test_sigterm_saves_in_every_process_and_the_run_goes_on(tmp_path: Path, home: Path, genwright: Callable) -> None:
    where = project(tmp_path / "p", "lora", "count = 2", "")
    (where / "genwright.toml").write_text((where / "genwright.toml").read_text().replace("steps = 3", "steps = 4000"))
    events = where / ".genwright" / "events.jsonl"
    running = subprocess.Popen(
        command(where, "apply"), env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until = time.monotonic() + 120
    while not any(event["kind"] == "step" for event in read_events(events)) and time.monotonic() < until:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    told, _ = running.communicate(timeout=120)
    assert running.returncode == 130, told.decode()
    assert "Stopped on request in adapt" in told.decode()
    last = max(event["step"] for event in read_events(events) if event["kind"] == "step")
    again = subprocess.Popen(
        command(where, "apply"), env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while (
        not any(event["kind"] == "note" and "resuming" in event["text"] for event in read_events(events))
        and time.monotonic() < until + 120
    ):
        time.sleep(0.2)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    (note,) = [
        event["text"] for event in read_events(events) if event["kind"] == "note" and "resuming" in event["text"]
    ]
    assert f"after step {last} of 4000" in note
