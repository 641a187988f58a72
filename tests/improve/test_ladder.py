"""Climbing: no higher than needed, never over budget, and it says why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from genwright.improve.climbing import tried
from genwright.improve.ladder import Rung, Tried, climb

SCORES = {"zero-shot": 1.0, "few-shot": 30.0, "lora": 60.0, "full": 55.0}


def run(target: float | None, *, costs: dict[str, dict[str, float]] | None = None, budget: dict[str, float] | None = None, real: float = 1.0,
        higher: bool = True):  # fmt: skip
    asked: list[str] = []

    def attempt(name: str, left: Mapping[str, float]) -> Tried:
        asked.append(name)
        return Tried(SCORES[name], SCORES[name], {"hours": real})

    rungs = [Rung(name, (costs or {}).get(name, {"hours": 1.0})) for name in SCORES]
    return climb(rungs, attempt, target=target, budget=budget, higher_is_better=higher), asked


def test_it_stops_at_the_first_rung_that_meets_the_target() -> None:
    climbed, asked = run(30.0)
    assert (climbed.chosen, climbed.met, asked) == ("few-shot", True, ["zero-shot", "few-shot"])
    assert climbed.why == "few-shot is the first rung that meets the target"


def test_without_a_target_the_best_is_taken_after_all_were_tried() -> None:
    climbed, asked = run(None)
    assert (climbed.chosen, climbed.met, len(asked)) == ("lora", None, 4)


def test_an_unreachable_target_says_so_and_names_the_nearest() -> None:
    climbed, _ = run(90.0)
    assert (climbed.chosen, climbed.met) == ("lora", False)
    assert climbed.why == "no rung meets the target of 90; lora comes nearest"


def test_lower_can_be_better() -> None:
    climbed, asked = run(2.0, higher=False)
    assert (climbed.chosen, climbed.met, asked) == ("zero-shot", True, ["zero-shot"])


def test_a_rung_beyond_the_budget_is_skipped_and_said() -> None:
    climbed, asked = run(90.0, costs={"lora": {"hours": 9.0}}, budget={"hours": 4.0})
    assert asked == ["zero-shot", "few-shot", "full"]
    assert [attempt.skipped for attempt in climbed.tried if attempt.skipped] == [
        "lora: needs up to 9 hours, and the budget has 2 left"
    ]
    assert climbed.chosen == "full"
    assert all(f"skipped {attempt.skipped}" in climbed.why for attempt in climbed.tried if attempt.skipped)


def test_what_a_rung_really_cost_is_what_is_left_less() -> None:
    assert run(90.0, budget={"hours": 4.0}, real=2.5)[1] == ["zero-shot", "few-shot"]


def test_an_unknown_cost_is_not_risked_under_a_budget() -> None:
    climbed, asked = run(90.0, budget={"usd": 5.0})
    assert asked == [] and climbed.chosen == "" and climbed.met is False
    assert "its cost in usd is unknown" in climbed.why


@given(st.lists(st.floats(0.1, 5), min_size=4, max_size=4), st.floats(0, 12))
def test_planned_costs_never_exceed_the_budget(hours: list[float], budget: float) -> None:
    spent: list[float] = []
    rungs = [Rung(str(number), {"hours": cost}) for number, cost in enumerate(hours)]

    def attempt(name: str, left: Mapping[str, float]) -> Tried:
        spent.append(hours[int(name)])
        return Tried(0.0, 0.0, {"hours": hours[int(name)]})

    climb(rungs, attempt, target=1.0, budget={"hours": budget})
    assert sum(spent) <= budget + 1e-9


def test_the_interval_must_clear_the_target_where_it_is_the_bound() -> None:
    scores = {"few-shot": (30.0, 24.0), "lora": (60.0, 52.0)}
    rungs = [Rung(name) for name in scores]
    climbed = climb(rungs, lambda name, left: Tried(*scores[name], {}), target=28.0)
    assert [attempt.name for attempt in climbed.tried] == ["few-shot", "lora"]
    assert (climbed.chosen, climbed.met) == ("lora", True)


def test_a_rung_that_was_stopped_has_no_score_and_is_not_chosen() -> None:
    def attempt(name: str, left: Mapping[str, float]) -> Tried:
        return (
            Tried(None, None, {"hours": left["hours"]}, "lora: stopped")
            if name == "lora"
            else Tried(9.0, 9.0, {"hours": 1.0})
        )

    rungs = [Rung("few-shot", {"hours": 1.0}), Rung("lora", {"hours": 1.0}), Rung("full", {"hours": 1.0})]
    climbed = climb(rungs, attempt, target=50.0, budget={"hours": 3.0})
    assert [(one.name, one.skipped) for one in climbed.tried] == [
        ("few-shot", ""), ("lora", "lora: stopped"), ("full", "full: needs up to 1 hours, and the budget has 0 left"),
    ]  # fmt: skip
    assert climbed.chosen == "few-shot"


def test_what_a_killed_process_spent_counts_once() -> None:
    seen = []

    def attempt(name: str, left: Mapping[str, float]) -> Tried:
        seen.append((name, left["hours"]))
        return Tried(1.0, 1.0, {"hours": 2.0})

    rungs = [Rung("few-shot", {"hours": 2.0}, spent={"hours": 1.5}), Rung("lora", {"hours": 2.0})]
    climb(rungs, attempt, target=50.0, budget={"hours": 4.0})
    assert seen == [("few-shot", 4.0), ("lora", 2.0)]


def test_a_killed_rung_needs_only_what_it_has_not_spent_yet() -> None:
    """Planned at 2 hours, 1.5 of them spent: half an hour is left of the budget, and that is enough."""
    attempt = lambda name, left: Tried(1.0, 1.0, {"hours": 2.0})
    half_done = Rung("few-shot", {"hours": 2.0}, spent={"hours": 1.5})
    assert climb([half_done], attempt, target=50.0, budget={"hours": 2.0}).chosen == "few-shot"
    assert climb([half_done], attempt, target=50.0, budget={"hours": 1.9}).chosen == ""


def test_a_finished_attempt_is_bound_by_the_end_of_its_interval_that_is_nearest_to_failing() -> None:
    done = {"skipped": "", "spent_seconds": 7200.0, "score": {"value": 50.0, "low": 40.0, "high": 60.0}}
    hardware = SimpleNamespace(watts=None, usd_per_hour=3.0)
    spec = lambda stop_at: SimpleNamespace(adapt=SimpleNamespace(stop_at=stop_at), hardware=hardware)
    assert tried(done, spec("interval"), True) == Tried(50.0, 40.0, {"hours": 2.0, "usd": 6.0})
    assert tried(done, spec("interval"), False).bound == 60.0
    assert tried(done, spec("value"), True).bound == 50.0
    assert tried({**done, "skipped": "why"}, spec("value"), True) == Tried(
        None, None, {"hours": 2.0, "usd": 6.0}, "why"
    )


def test_a_score_that_meets_the_target_by_luck_alone_is_said_to() -> None:
    lucky = lambda name, left: Tried(60.0 if name == "b" else 40.0, 30.0, {})
    climbed = climb([Rung("a"), Rung("b"), Rung("c")], lucky, target=50.0)
    assert (climbed.chosen, climbed.met, len(climbed.tried)) == ("b", False, 3)
    assert climbed.why == "b scores 60, but no rung's interval clears the target of 50"
