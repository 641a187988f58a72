from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import Busy, Interrupted


@dataclass
class Decision:
    stage: str
    action: str
    why: str
    key: str = ""


@dataclass
class Outcome:
    exit_code: int
    decisions: tuple[Decision, ...] = (Decision("adapt", "run", "never run"),)
    artifacts: Any = None


@pytest.fixture
def applied(fake: dict[str, Any]) -> dict[str, Any]:
    """What `apply` was asked; `seen["outcome"]` is what it will answer."""
    seen: dict[str, Any] = {"outcome": Outcome(0)}

    def apply(spec: Any, *, events: Any, until: Any = None, force: Any = ()) -> Outcome:
        seen.update(spec=spec, until=until, force=force)
        events.write("stage_started", stage="adapt", why="never run")
        events.write("step", stage="adapt", rung="lora", step=1, total=10, loss=2.0, tokens=100, seconds=0.1)
        events.write("stage_finished", stage="adapt", seconds=1.0, key="k")
        return seen["outcome"]

    fake["genwright.project.apply:apply"] = apply
    return seen


def test_apply_ends_with_planned_beside_measured_and_scores(genwright, applied, finished: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("apply", "--project", finished)
    words = " ".join(ran.out.split())
    assert ran.code == 0, ran.err
    assert words.startswith("adapt run: never run adapt lora step 1/10 loss 2.000 1,000 tokens/s")
    assert "memory: evaluating 1.12 GiB 1 GiB to 1.3 GiB 1.43 GiB x 1.28 outside" in words
    assert "zero-shot 1.2 (0.5 to 2.8)" in words and "lora * 50.7 (45.9 to 55.5)" in words
    assert "lora is better than few-shot on the same rows: +27.6 (+22.3 to +32.8), p < 0.001, mcnemar-exact" in words
    assert f"genwright report --project {finished}" in words
    assert "genwright chat" in words


def test_json_has_the_outcome_and_progress_goes_to_the_other_stream(genwright, applied, finished: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("apply", "--project", finished, "--json")
    facts = ran.json()
    assert facts["exit_code"] == 0
    assert facts["stages"] == [{"stage": "adapt", "action": "run", "why": "never run"}]
    assert facts["summaries"]["evaluate"]["met"] is True
    assert "step 1/10" in ran.err


def test_until_force_and_set_reach_apply(genwright, applied, finished: Path) -> None:  # type: ignore[no-untyped-def]
    genwright(
        "apply",
        "--project",
        finished,
        "--until",
        "adapt",
        "--force",
        "scope",
        "--force",
        "adapt",
        "--set",
        "adapt.steps=5",
    )
    assert (applied["until"], applied["force"], applied["spec"].adapt.steps) == ("adapt", ("scope", "adapt"), 5)


def test_a_missed_target_exits_with_3_and_says_so(genwright, applied, recorded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    summaries = {**recorded.SUMMARIES, "evaluate": {**recorded.SUMMARIES["evaluate"], "met": False}}
    applied["outcome"] = Outcome(3)
    ran = genwright("apply", "--project", recorded.write_project(tmp_path / "missed", summaries=summaries))
    assert ran.code == 3 and "The target was not met (exit code 3)." in ran.out


def test_an_interrupted_apply_exits_with_130_and_says_how_to_go_on(genwright, fake, begun: Path) -> None:  # type: ignore[no-untyped-def]
    def stopped(*_: Any, **__: Any) -> None:
        raise Interrupted("Stopped on request in adapt.", do="run the same command again to go on")

    fake["genwright.project.apply:apply"] = stopped
    ran = genwright("apply", "--project", begun)
    assert ran.code == 130 and "run the same command again" in ran.err and "Traceback" not in ran.err


def test_a_second_apply_is_told_about_the_first(genwright, fake, begun: Path) -> None:  # type: ignore[no-untyped-def]
    def busy(*_: Any, **__: Any) -> None:
        raise Busy("process 4711 is applying this project")

    fake["genwright.project.apply:apply"] = busy
    ran = genwright("apply", "--project", begun)
    assert ran.code == 2 and ran.err == "genwright: Busy: process 4711 is applying this project\n"


def test_events_are_recorded_beside_the_project(genwright, applied, begun: Path) -> None:  # type: ignore[no-untyped-def]
    genwright("apply", "--project", begun)
    told = [json.loads(line) for line in (begun / ".genwright" / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in told] == ["environment", "stage_started", "step", "stage_finished"]
    assert told[0]["torch"] and "cores" in told[0]["machine"]
