"""A budget in time, money or energy is never exceeded: by a clock of our own, on which steps and answers take what we say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.base.events import Events
from genwright.improve.budget import OutOfBudget, cost, spent_seconds
from genwright.improve.climbing import climb_project
from genwright.improve.judging import judge
from genwright.improve.workshop import Workshop
from genwright.plan.estimate import Estimate, Range

STEP, JUDGING, SECONDS = 12.0, 5.0, 45.0
WATTS, USD_PER_HOUR = 100.0, 36.0
BUDGETS = {"hours": SECONDS / 3600, "usd": SECONDS / 3600 * USD_PER_HOUR, "kwh": SECONDS * WATTS / 3.6e6}
"""Three ways to say 45 seconds."""


class Clock:
    """Stands for the module `time`; what a step or the judging of all rows takes goes by when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = perf_counter = time

    def __call__(self, event: dict[str, Any]) -> None:
        share = event.get("total") and event.get("done", 0) / event["total"]
        took = {"step": STEP, "progress": JUDGING * (share or 0.0)}
        self.now += took.get(event["kind"], 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ours = Clock()
    for room in ("attempting", "budget", "judging", "training", "workshop"):
        monkeypatch.setattr(f"genwright.improve.{room}.time", ours)
    return ours


def plan(training: float) -> Estimate:
    """Too low for a training of ten steps, as plans can be; right for judging."""
    of = {"host_bytes": 1.0, "train_seconds": training, "evaluate_seconds": JUDGING, "seconds": training + JUDGING}
    return Estimate({name: Range(value, value, value) for name, value in of.items()})


@pytest.mark.parametrize("unit", BUDGETS)
def test_the_climb_ends_within_the_budget_though_the_plan_was_too_low(
    unit: str, shop: Callable[..., Workshop], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "genwright.improve.climbing.plan_ladder",
        lambda _: {rung: plan(seconds) for rung, seconds in {"zero-shot": 0.0, "lora": 20.0, "full": 20.0}.items()},
    )
    made = shop(
        'adapt.ladder=["zero-shot", "lora", "full"]', "adapt.steps=10", "adapt.validation_rows=2", "scope.target=101.0",
        f"scope.budget.{unit}={BUDGETS[unit]}", f"hardware.watts={WATTS}", f"hardware.usd_per_hour={USD_PER_HOUR}",
    )  # fmt: skip
    made.events = Events(tmp_path / "events.jsonl", (clock,))
    zero, lora, full = climb_project(made)["rungs"]
    assert zero["spent_seconds"] == JUDGING and lora["spent_seconds"] == 2 * STEP + JUDGING
    assert lora["score"] and "stopped at step 2 of 10: the budget is spent" in (tmp_path / "events.jsonl").read_text()
    assert full["skipped"].startswith("full: needs up to") and not (tmp_path / "made" / "full").exists()
    spent = sum(spent_seconds(tmp_path / "made" / rung) for rung in ("zero-shot", "lora", "full"))
    assert cost(spent, made.spec.hardware)[unit] <= BUDGETS[unit]


def test_a_judgement_stops_before_the_batch_that_would_be_too_much(
    shop: Callable[..., Workshop], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 4 s and 10 s to go: two are answered, a third would end at 12 s."""
    made, asked = shop(), []

    def answered(workshop: Any, rung: str, rows: Any, tell: Callable[[int, int], None]) -> Any:
        for number in range(1, 9):
            asked.append(number)
            clock.now += 4.0
            tell(number, 8)

    monkeypatch.setattr("genwright.improve.judging._answered", answered)
    made.until = clock.now + 10.0
    with pytest.raises(OutOfBudget):
        judge(made, "zero-shot", made.rows("validation"), split="validation")
    assert asked == [1, 2] and clock.now <= made.until
