"""Searches: halving by the published schedule, prompts as they are put, LoRA's rank and rate, and what survives a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.improve.conftest import NOTHING

from genwright.improve import failures
from genwright.improve.attempting import attempt
from genwright.improve.budget import Meter, OutOfBudget, cost, seconds_left, spent_seconds
from genwright.improve.climbing import climb_project
from genwright.improve.halving import Round, halve, rounds, work
from genwright.improve.planning import asking_of
from genwright.improve.prompts import Prompt, instructed, instructions, prompts
from genwright.improve.searching import candidates, lora_work, prompt_work, with_search
from genwright.improve.workshop import Workshop
from genwright.plan.estimate import Estimate, Range


def test_rounds_are_those_of_the_paper() -> None:
    planned = rounds(9, 90, factor=3)
    assert planned == [Round(10, 9), Round(30, 3)]
    assert work(planned) == 2 * 90
    assert rounds(1, 90, factor=3) == []
    assert rounds(16, 8, factor=2, least=4)[0] == Round(4, 16)
    assert rounds(9, 3, factor=3, least=4) == [Round(3, 9), Round(3, 3)], "never more than the full effort"


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_candidate_wins_and_the_effort_is_the_planned(higher: bool) -> None:
    asked: list[tuple[int, int]] = []

    def measure(candidate: int, effort: int) -> float:
        asked.append((candidate, effort))
        return candidate if higher else -candidate

    winner, told = halve(range(9), 90, measure, factor=3, higher_is_better=higher)
    assert winner == 8 and len(told) == 12
    assert sum(effort for _, effort in asked) == work(rounds(9, 90, factor=3))


def test_a_part_of_a_candidate_is_rounded_up() -> None:
    """5 by halves: 5, 3 and 2 are measured, as planned."""
    asked: list[int] = []
    winner, told = halve(range(5), 8, lambda candidate, effort: asked.append(effort) or float(candidate), factor=2)
    assert winner == 4 and len(told) == 10 and sum(asked) == work(rounds(5, 8, factor=2)) == 5 + 3 * 2 + 2 * 4


def test_an_instruction_stands_before_the_first_question_and_after_the_system_turn() -> None:
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert instructed(said, "Do.") == [said[0], {"role": "user", "content": "Do.\n\nq"}]
    assert instructed(said, "") == said and said[1]["content"] == "q"
    assert any("red, blue" in text for text in instructions("classification", ("red", "blue")))
    assert max(prompt.examples for prompt in prompts("chat", (), 5)) == 4


def test_costs_and_the_time_that_is_left() -> None:
    class Hardware:
        watts, usd_per_hour = 45.0, 0.1

    assert cost(3600, Hardware) == {"hours": 1.0, "usd": 0.1, "kwh": 0.045}
    assert seconds_left({"hours": 2.0, "kwh": 0.045}, Hardware) == pytest.approx(3600)
    assert seconds_left({}, Hardware) == float("inf")


def test_the_meter_goes_on_where_a_killed_process_was(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text('{"seconds": 100.0}')
    with Meter(tmp_path) as meter:
        assert meter.seconds >= 100
    assert spent_seconds(tmp_path) == pytest.approx(meter.seconds, abs=0.5)
    (tmp_path / "spent.json").write_text("half")
    assert spent_seconds(tmp_path) == 0.0


def test_a_climb_with_searches_never_reads_the_test_rows_and_repeats_nothing(
    shop: Callable[..., Workshop], unplanned: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = 'adapt.ladder=["few-shot", "prompt-search", "lora-search"]'
    changes = (ladder, 'adapt.examples="auto"', "adapt.steps=4", "scope.target=100.5")
    first = climb_project(shop(*changes))
    assert [rung["name"] for rung in first["rungs"]] == ["few-shot", "prompt-search", "lora-search"]
    chosen = json.loads((tmp_path / "made" / "lora-search" / "chosen.json").read_text())["chosen"]
    recipe = first["recipes"]["lora-search"]
    assert (recipe["adapter"]["rank"], recipe["learning_rate"]) == (chosen["rank"], chosen["learning_rate"])
    rank = json.loads((tmp_path / "made" / "lora-search" / "adapter" / "adapter_config.json").read_text())["r"]
    assert rank == chosen["rank"]
    assert len(first["errors"]["changes"]) == 2
    monkeypatch.setattr(
        "genwright.improve.attempting.make", lambda *_, **__: pytest.fail("a finished rung was made again")
    )
    assert climb_project(shop(*changes)) == first


def test_a_killed_search_goes_on_with_the_trials_it_has(
    shop: Callable[..., Workshop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shop('adapt.ladder=["prompt-search"]')
    asked = []

    def killed(*_: Any) -> None:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt

    from genwright.improve.searching import search_prompt

    folder = tmp_path / "made" / "prompt-search"
    with pytest.raises(KeyboardInterrupt):
        search_prompt(made, "prompt-search", folder, killed)
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}
    assert kept
    search_prompt(made, "prompt-search", folder, lambda: None)
    assert {name: (folder / "trials" / name).stat().st_mtime_ns for name in kept} == kept


def test_a_rung_out_of_budget_stops_inside_and_has_no_score(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    made = shop()
    stopped = attempt(made, "lora", NOTHING, seconds=0.0)
    assert stopped["skipped"].startswith("lora: stopped") and "score" not in stopped
    assert stopped["spent_seconds"] >= 0 and made.until == float("inf")
    made.until = 0.0
    with pytest.raises(OutOfBudget):
        made.within_budget()
    told = (tmp_path / "events.jsonl").read_text()
    assert "the budget is spent" in told and "stopped at step 1 of 4" in told


def test_what_is_spent_is_noted_while_it_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed never leaves the block: its ledger must stand before."""
    monkeypatch.setattr("genwright.improve.budget.NOTED_EVERY", 0.001)
    with Meter(tmp_path) as meter:
        deadline = meter.start + 30
        while not (tmp_path / "spent.json").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert spent_seconds(tmp_path) > 0


def test_failing_rows_are_clustered_by_what_they_ask_and_changes_are_counted(tmp_path: Path) -> None:
    questions = [f"resize the disk {n}" for n in range(6)] + [f"start a machine {n}" for n in range(6)]
    write = lambda name, scores: (tmp_path / name).write_text(
        "".join(
            json.dumps({"prompt": q, "reference": "r", "prediction": "p", "score": s}) + "\n"
            for q, s in zip(questions, scores)
        )
    )
    write("one", [0.0] * 11 + [100.0])
    write("two", [0.0] * 5 + [100.0] + [0.0] * 6)
    found = failures.error_analysis([("few-shot", tmp_path / "one"), ("lora", tmp_path / "two")])
    (change,) = found["changes"]
    assert (change["fixed"], change["broke"], found["failing"]) == (1, 1, 11)
    assert [one["rows"] for one in found["clusters"]] == [6, 5]
    assert {"machine", "start"} <= set(found["clusters"][0]["words"]) and "disk" in found["clusters"][1]["words"]
    assert failures.clusters([]) == []


def test_where_lower_is_better_the_worst_quarter_fails() -> None:
    rows = [{"score": float(number)} for number in range(8)]
    assert failures.failed(rows, higher_is_better=False) == [False] * 6 + [True] * 2
    assert failures.failed(rows, higher_is_better=True) == [True] * 8


def test_k_means_agrees_with_a_library_on_rows_that_lie_apart() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    vectors, _ = failures.vectors([f"{word} {word}s {n}" for word in ("apple", "bread", "cheese") for n in range(5)])
    ours, _ = failures.k_means(vectors, 3)
    theirs = cluster.KMeans(3, n_init=10, random_state=0).fit_predict(vectors)
    assert len({(a, b) for a, b in zip(ours.tolist(), theirs.tolist())}) == 3


def test_a_search_is_priced_with_the_rung_it_belongs_to(shop: Callable[..., Workshop]) -> None:
    """9 LoRAs at 4 of 18 steps, 3 at 6: 54 / 18 = 3 trainings more. 16 prompts that all fit."""
    recipe = SimpleNamespace(steps=18)
    assert lora_work(recipe) == 1 + (9 * 4 + 3 * 6) / 18
    exactly = lambda value: Range(value, value, value)
    once = Estimate(
        {"train_seconds": exactly(10.0), "seconds": exactly(12.0), "joules": exactly(1.0), "usd": exactly(1.0)}
    )
    searched = with_search(once, "train_seconds", 4.0, SimpleNamespace(watts=2.0, usd_per_hour=3600.0)).quantities
    assert searched["train_seconds"] == Range(40.0, 40.0, 48.0)
    assert searched["seconds"] == Range(42.0, 42.0, 50.0)
    assert (searched["joules"].value, searched["usd"].value) == (84.0, 42.0)
    made = shop('adapt.ladder=["prompt-search"]')
    found = candidates(made, "prompt-search")
    planned = rounds(len(found), len(made.judged_on), factor=2, least=4)
    assert prompt_work(made, "prompt-search") == 1 + sum(one.effort * one.candidates for one in planned) / len(
        made.judged_on
    )
    assert all(made.longest_prompt(prompt.examples) < made.context for prompt in found)


def test_prompts_that_do_not_fit_the_context_are_not_tried(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shop('adapt.ladder=["prompt-search"]')
    at = lambda context: monkeypatch.setattr(Workshop, "context", context) or candidates(made, "prompt-search")
    longest = made.longest_prompt(4)
    found = at(longest + 5)
    assert max(prompt.examples for prompt in found) == 4
    assert not any(prompt.examples == 4 and prompt.instruction for prompt in found), "an instruction takes room too"
    assert max(prompt.examples for prompt in at(longest + 4)) == 0
    assert at(1) == [Prompt()], "the plain question is asked where nothing fits"


def test_what_is_not_shown_for_want_of_room_is_not_planned(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shop('adapt.ladder=["few-shot"]', "adapt.max_new_tokens=6")
    longest = made.longest_prompt(4)
    monkeypatch.setattr(Workshop, "context", longest + 5)
    assert max(asking_of(made, "few-shot").prompts) == longest - 1


def test_the_largest_cluster_stands_first_and_its_middle_row_leads() -> None:
    """Three equal questions lie nearest to the mean of all, so they are the first centre; five that share one word are more."""
    rows = [{"prompt": "resize disk"}] * 3 + [
        {"prompt": f"start {word}"} for word in ("alpha", "bravo", "start", "delta", "gamma")
    ]
    first, second = failures.clusters(rows)
    assert (first["rows"], second["rows"]) == (5, 3)
    assert first["examples"][0]["prompt"] == "start start" and first["words"][0] == "start"
