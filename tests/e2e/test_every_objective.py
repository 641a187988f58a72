"""Every objective goes all the way, from the project file to a result: planned, trained, judged, handed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.tiny import write_model, write_project

from genwright.base.events import read_events
from genwright.catalogue.parts import OBJECTIVES

CHAT = dict(kind="chat", task="chat", family="decoder")
PAIRS = dict(kind="preference", task="chat", family="decoder")
FORGET = dict(kind="forget", task="chat", family="decoder")
REWARD = 'reward = "rewards.py:score"\n'

PROJECTS: dict[str, dict] = {
    "causal": dict(kind="text", task="pre-training", family="decoder"),
    "masked": dict(kind="text", task="pre-training", family="encoder", method="full"),
    "span-corruption": dict(kind="text", task="pre-training", family="encoder-decoder", method="full"),
    "instruction": CHAT,
    "classification": dict(kind="labelled", task="classification", family="encoder"),
    "token-classification": dict(kind="tagged", task="named-entities", family="encoder", metric="exact-match"),
    "dpo": PAIRS,
    "kto": PAIRS,
    "orpo": PAIRS,
    "grpo": CHAT | dict(adapt=f"{REWARD}answers = 3\nupdates = 2\n[adapt.grpo]\nbeta = 0.1\n"),
    "ppo": CHAT | dict(adapt=f"{REWARD}answers = 1\n", method="full"),
    "distillation": CHAT | dict(adapt='teacher = "./teacher"\n'),
    "gradient-ascent": FORGET,
    "gradient-difference": FORGET,
    "npo": FORGET,
    "rmu": FORGET | dict(adapt="[adapt.rmu]\nlayer = 1\n"),
    "generic-targets": FORGET | dict(adapt='teacher = "./teacher"\n'),
    "contrastive": dict(kind="chat", task="information-retrieval", family="encoder", method="full"),
    "reward-model": PAIRS | dict(metric="pair-accuracy"),
}


def test_every_objective_is_here() -> None:
    assert set(PROJECTS) == set(OBJECTIVES)


@pytest.mark.parametrize("objective", PROJECTS)
def test_from_project_file_to_result(objective: str, tmp_path: Path, genwright_here: Callable) -> None:
    project = write_project(tmp_path, objective=objective, **{"method": "lora", **PROJECTS[objective]})
    write_model(tmp_path / "teacher", "decoder", seed=1)
    done = genwright_here(project, "apply", "--json")
    assert done.code in (0, 3), done.told
    (rung,) = done.json["summaries"]["adapt"]["rungs"]
    assert rung["measured"]["step_seconds"] > 0 and rung["planned"]["flops_per_step"] > 0
    steps = [event for event in read_events(project / ".genwright" / "events.jsonl") if event["kind"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3] and all(step["grad_norm"] > 0 for step in steps)
    assert (Path(done.json["artifacts"]["integrate"]) / "model" / "config.json").exists()
    assert json.dumps(done.json)
