"""Recipes: the budget's words, the line that breaks a plan, the change that mends it, the front of time and money."""

from __future__ import annotations

from typing import Any

import pytest

from genwright.base.errors import BadRequest
from genwright.plan import search as searching
from genwright.plan.estimate import Estimate, Range
from genwright.plan.search import CHANGES, Job, Recipe, broken_by, budget_of, pareto, search
from genwright.plan.traced.setup import Setup

GIB = 2**30
JOB = Job("mine", {"model_type": "llama"}, rows=8, steps=3600, wanted={"adapter": "full", "seq_len": 512})


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """A world in which one row takes 30 GiB, 6 when recomputed; state is 60 GiB, which zero3 splits; a second of one row's work."""
    asked: list[Setup] = []

    def estimate(setup: Setup, placed: Any, **_: Any) -> Estimate:
        asked.append(setup)
        state = 60.0 / (setup.count if setup.strategy == "zero3" else 1) * (0.1 if setup.offload else 1)
        rows = setup.micro_batch * (6.0 if setup.recompute == "full" else 30.0)
        slower = (1.3 if setup.recompute == "full" else 1.0) * (1.1 if setup.strategy == "zero3" else 1.0)
        size, limit = state + rows, float(placed.device.memory_gb)
        seconds = 8 * slower / setup.count
        return Estimate(
            {"step_seconds": Range(seconds, seconds, seconds), "device_peak_bytes": Range(size * GIB, 0, 0)},
            {"weights": state * GIB, "activations": rows * GIB}, facts={"fits": size <= limit, "limit_bytes": limit * GIB},
        )  # fmt: skip

    monkeypatch.setattr(searching, "estimate_training", estimate)
    return asked


@pytest.mark.parametrize(
    ("text", "limits"),
    [("20usd", {"usd": 20}), ("$20", {"usd": 20}), ("1.5h, 5kwh", {"hours": 1.5, "kwh": 5}), ("3 dollars", {"usd": 3})],
)
def test_budgets_as_people_write_them(text: str, limits: dict[str, float]) -> None:
    assert budget_of(text) == limits


@pytest.mark.parametrize("text", ["", "20", "twenty usd", "0usd", "5 miles", "-3h"])
def test_what_is_no_budget_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(BadRequest, match="an amount and its unit"):
        budget_of(text)


def test_each_group_goes_down_its_ladder_to_the_first_that_fits(priced: list[Setup]) -> None:
    found = search(JOB, ["a100-80gb"], most=2)
    single = next(one for one in found["fitting"] if one["count"] == 1)
    assert (single["recompute"], single["micro_batch"], single["accumulate"]) == ("full", 1, 8)
    split = next(one for one in found["fitting"] if one["strategy"] == "zero3")
    assert (split["recompute"], split["micro_batch"]) == ("none", 1)  # 30 + 30 of 80 GiB
    assert all(
        one["micro_batch"] * one["accumulate"] * one["count"] == 8 for one in found["fitting"] + found["failing"]
    )
    groups = [(one["count"], one["strategy"]) for one in found["fitting"]]
    assert len(groups) == len(set(groups)), "the fastest of each group, and no leaner one"
    assert len(priced) == len({setup.identity() for setup in priced}), "nothing is priced twice"


def test_cheapest_first_and_money_is_hours_times_price(priced: list[Setup]) -> None:
    found = search(JOB, ["a100-80gb"], most=4, usd_per_hour=2.0)
    spent = [one["usd"] for one in found["fitting"]]
    assert spent == sorted(spent)
    assert all(one["usd"] == pytest.approx(2 * one["hours"] * one["count"]) for one in found["fitting"])


def test_what_fails_names_its_line_and_the_smallest_change(priced: list[Setup]) -> None:
    failing = search(JOB, ["a100-80gb"], most=2)["failing"]
    single = next(one for one in failing if one["count"] == 1)
    assert (single["broken_by"], single["mended_by"], single["mended_gib"]) == (
        "activations",
        "several changes: single, 1 x 8 rows, recompute",
        66,
    )
    hopeless = search(JOB, ["t4"], most=1)["failing"]
    assert hopeless[0]["broken_by"] == "weights" and "offload" in hopeless[0]["mended_by"]


def test_more_devices_mend_what_no_change_does(priced: list[Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "CHANGES", ())
    job = Job("mine", JOB.config, 8, 10, {**JOB.wanted, "recompute": "none"})
    monkeypatch.setattr(searching, "ROWS_AT_ONCE", (1,))
    failing = search(job, ["a100-40gb"], most=8)["failing"]
    alone = next(one for one in failing if one["count"] == 1)
    assert alone["mended_by"].startswith(("several changes", "--count 8 (zero3"))


def test_a_budget_parts_those_within_it(priced: list[Setup]) -> None:
    found = search(JOB, ["a100-80gb"], most=4, budget={"hours": 3.0}, usd_per_hour=1.0)
    assert {one["within_budget"] for one in found["fitting"]} == {True, False}
    assert all(one["within_budget"] == (one["hours"] <= 3.0) for one in found["fitting"])
    order = [one["within_budget"] for one in found["fitting"]]
    assert order == sorted(order, reverse=True)


def test_without_a_price_nothing_is_within_a_budget_of_money(priced: list[Setup]) -> None:
    found = search(JOB, ["rtx-4090"], most=8, budget={"usd": 1e6})
    assert all(not one["within_budget"] for one in found["fitting"]) and not found["pareto"]


def test_an_old_device_computes_in_fp16(priced: list[Setup]) -> None:
    assert {one["precision"] for one in search(JOB, ["v100-32gb"], most=1)["failing"]} == {"fp16"}


def test_the_line_that_breaks_is_where_the_sum_outgrows_the_device() -> None:
    parts = {"activations": 50.0, "weights": 40.0, "context": 1.0, "optimizer": 20.0}
    assert broken_by(parts, 45.0) == ("optimizer", 20.0)
    assert broken_by(parts, 39.0) == ("weights", 40.0)
    assert broken_by(parts, 100.0) == ("activations", 50.0)
    assert broken_by(parts, 500.0) == ("activations", 50.0)


def test_every_change_is_one_that_a_setup_allows_and_is_not_offered_twice() -> None:
    one = Setup(model="m", adapter="full", micro_batch=4, accumulate=2, strategy="ddp", count=2, seq_len=512)
    for name, change in CHANGES:
        values = change(one)
        changed = Setup(**{**one.to_json(), **values})
        assert changed.check() and changed.micro_batch * changed.accumulate == 8
        if values and "halved" not in name:
            assert change(changed) != values, name


def test_the_front_holds_what_nobody_beats_in_both() -> None:
    of = lambda hours, usd: Recipe(Setup(model="m"), "d", True, hours, usd, None, 1.0, 2.0, {})
    recipes = [of(1, 10), of(2, 5), of(3, 6), of(2, 9), of(4, 1), of(0.5, None)]
    assert [(one.hours, one.usd) for one in pareto(recipes)] == [(1, 10), (2, 5), (4, 1)]


def test_auto_prefers_what_fits_and_then_the_fastest(priced: list[Setup]) -> None:
    from genwright.catalogue.device_names import place

    setup = Setup(model="m", adapter="full", recompute="full", count=4, strategy="zero3")
    assert searching.choose(setup, place("a100-80gb")).strategy == "ddp"
    assert searching.choose(setup, place("a100-40gb")).strategy == "zero3"
    assert searching.choose(Setup(model="m"), place("a100-40gb")).strategy == "single"
