"""The smallest example goes all the way: plan, apply, report, chat; and a second time for nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genwright.base.events import read_events
from genwright.base.files import sha256_of_file

STAGES = ["scope", "select", "adapt", "evaluate", "integrate"]


@pytest.fixture(scope="module")
def applied(smallest: Path, genwright: Callable) -> tuple[Path, dict]:
    """The example after its first apply, and what `apply --json` said."""
    done = genwright(smallest, "apply", "--json")
    assert done.code in (0, 3), done.told
    return smallest, {"code": done.code, **done.json}


def test_five_stages_ran_and_left_their_artifacts(applied: tuple[Path, dict]) -> None:
    _, told = applied
    assert [stage["stage"] for stage in told["stages"]] == STAGES
    assert {stage["action"] for stage in told["stages"]} == {"run"}
    for stage in STAGES:
        assert (Path(told["artifacts"][stage]) / f"{stage}.json").exists()


def test_splits_are_whole_and_share_no_group(applied: tuple[Path, dict]) -> None:
    project, told = applied
    folder = Path(told["artifacts"]["scope"])
    rows = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation", "test")
    }
    assert sum(map(len, rows.values())) == len((project / "data" / "summaries.jsonl").read_text().splitlines())
    groups = {name: {row["group"] for row in part} for name, part in rows.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]


def test_learning_shows(applied: tuple[Path, dict]) -> None:
    """A model with random weights answers noise; after training it writes English. The paired test must see it."""
    _, told = applied
    adapt, evaluate = told["summaries"]["adapt"], told["summaries"]["evaluate"]
    scores = {rung["name"]: rung["score"] for rung in adapt["rungs"] if not rung["skipped"]}
    assert scores["full"]["value"] > scores["zero-shot"]["value"]
    assert scores["full"]["low"] <= scores["full"]["value"] <= scores["full"]["high"]
    assert [pair["before"] for pair in evaluate["paired"]] == ["zero-shot"]
    assert evaluate["paired"][0]["better"] and evaluate["paired"][0]["p_value"] < 0.05
    assert told["code"] == (0 if evaluate["met"] else 3)


def test_planned_stands_beside_measured(applied: tuple[Path, dict]) -> None:
    _, told = applied
    rung = next(rung for rung in told["summaries"]["adapt"]["rungs"] if rung["name"] == "full")
    for key in ("train_peak_bytes", "step_seconds", "evaluate_peak_bytes", "save_peak_bytes", "resume_peak_bytes"):
        assert rung["planned"][key] > 0, key
    assert rung["measured"]["train_peak_bytes"] > 0 and rung["measured"]["step_seconds"] > 0


def test_merged_model_answers_in_plain_transformers(applied: tuple[Path, dict]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, told = applied
    folder = Path(told["artifacts"]["integrate"]) / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "close(self)"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_every_event_has_its_time_and_kind(applied: tuple[Path, dict]) -> None:
    project, _ = applied
    events = read_events(project / ".genwright" / "events.jsonl")
    times = [event["time"] for event in events]
    assert times == sorted(times)
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 101))


def test_second_apply_reuses_every_stage(applied: tuple[Path, dict], genwright_here: Callable) -> None:
    project, told = applied
    before = {path: sha256_of_file(path) for path in Path(told["artifacts"]["adapt"]).rglob("*") if path.is_file()}
    done = genwright_here(project, "apply", "--json")
    assert done.code == told["code"]
    assert {stage["action"] for stage in done.json["stages"]} == {"reuse"}
    assert done.json["summaries"] == told["summaries"]
    assert before == {path: sha256_of_file(path) for path in before}


@pytest.mark.parametrize(
    "words",
    [
        "plan",
        "status",
        "report",
        "data show",
        "tasks",
        "devices",
        "models list",
        "doctor",
        "plan --explain adapt.steps",
    ],
)
def test_json_stands_alone_on_standard_output(applied: tuple[Path, dict], genwright_here: Callable, words: str) -> None:
    project, _ = applied
    done = genwright_here(project, *words.split(), "--json")
    assert done.code == 0, done.told
    assert done.json


def test_plan_says_what_changed(applied: tuple[Path, dict], genwright_here: Callable) -> None:
    project, _ = applied
    done = genwright_here(project, "plan", "--set", "adapt.steps=50", "--json")
    actions = {stage["stage"]: stage for stage in done.json["stages"]}
    assert actions["scope"]["action"] == actions["select"]["action"] == "reuse"
    assert actions["adapt"]["action"] == "run"
    assert re.search(r"adapt\.steps changed: 100 -> 50", actions["adapt"]["why"])


def test_report_is_one_page_that_needs_nothing(applied: tuple[Path, dict], genwright_here: Callable) -> None:
    project, _ = applied
    assert genwright_here(project, "report").code == 0
    page = (project / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "chrf" in page.lower() and "<svg" in page


def test_one_question_is_answered_and_always_the_same(applied: tuple[Path, dict], genwright_here: Callable) -> None:
    project, _ = applied
    answers = [genwright_here(project, "chat", "--ask", "close(self)", "--json") for _ in range(2)]
    assert answers[0].code == 0, answers[0].told
    assert answers[0].json["answer"].strip() and answers[0].json == answers[1].json


def test_corrupted_artifact_is_named_set_aside_and_made_again(applied: tuple[Path, dict], genwright: Callable) -> None:
    project, told = applied
    artifact = Path(told["artifacts"]["evaluate"])
    victim = next(artifact.glob("predictions-*.jsonl"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-20] + b"x" * 20)
    done = genwright(project, "apply", "--json")
    assert done.code == told["code"], done.told
    actions = {stage["stage"]: stage for stage in done.json["stages"]}
    assert actions["evaluate"]["action"] == "run" and victim.name in actions["evaluate"]["why"]
    assert list((project / ".genwright" / "set-aside").iterdir())
    assert victim.read_bytes() == whole


def test_the_whole_example_takes_less_than_a_minute(smallest: Path, genwright: Callable) -> None:
    """Measured on an idle machine with 2 cores; a loaded one gets twice the time. The last test: it starts afresh."""
    began = time.monotonic()
    done = genwright(smallest, "apply", *(word for stage in STAGES for word in ("--force", stage)))
    assert done.code in (0, 3), done.told
    assert time.monotonic() - began < 120
