"""The gate by hand: what falls beyond its tolerance fails, what is better or within it is held, what was not measured fails."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from genwright.base.errors import BadRequest
from genwright.evaluate.gate import Tolerances, compare

ROWS = [f"row{n}" for n in range(40)]
BEFORE: dict[str, Any] = {
    "quality": {"suite": {"scores": [100.0] * 30 + [0.0] * 10, "rows": ROWS, "lower_is_better": False},
                "surprise": {"scores": [2.0] * 40, "rows": ROWS, "lower_is_better": True}},
    "seconds_per_token": 0.01, "bytes": 1000, "safety": {"attack direct": 10.0}, "handoffs": {"merged": {"passed": True, "told": ""}},
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(BEFORE), **changes}


def failed(after: dict[str, Any], **tolerances: float) -> list[str]:
    return [one.what for one in compare(BEFORE, after, Tolerances(**tolerances)) if one.failed]


def suite(name: str, scores: list[float], **changes: Any) -> dict[str, Any]:
    quality = copy.deepcopy(BEFORE["quality"])
    quality[name] = quality[name] | {"scores": scores} | changes
    return changed(quality=quality)


def test_the_same_is_held() -> None:
    assert failed(BEFORE) == [] and len(compare(BEFORE, BEFORE, Tolerances())) == 6


@pytest.mark.parametrize(
    ("right", "tolerance", "fell"), [(30, 0, False), (29, 1, True), (29, 3, False), (35, 0, False), (20, 10, True)]
)
def test_a_score_may_fall_by_its_tolerance(right: int, tolerance: float, fell: bool) -> None:
    """One row of 40 is 2.5 points."""
    after = suite("suite", [100.0] * right + [0.0] * (40 - right))
    assert failed(after, quality=tolerance) == (["suite"] if fell else [])


def test_whether_the_interval_says_so_is_told() -> None:
    told = {
        right: compare(BEFORE, suite("suite", [100.0] * right + [0.0] * (40 - right)), Tolerances())[0].told
        for right in (10, 29)
    }
    assert told[10].endswith("the interval says so") and told[29].endswith("within chance")


def test_where_lower_is_better_more_is_worse() -> None:
    assert (
        failed(suite("surprise", [2.5] * 40), quality=0.4) == ["surprise"]
        and failed(suite("surprise", [1.0] * 40)) == []
    )


@pytest.mark.parametrize(
    ("after", "fell"),
    [
        (changed(seconds_per_token=0.0149), []), (changed(seconds_per_token=0.0151), ["seconds a token"]), (changed(bytes=1049), []),
        (changed(bytes=1051), ["bytes"]), (changed(bytes=10), []), (changed(safety={"attack direct": 11.9}), []),
        (changed(safety={"attack direct": 12.1}), ["attack direct"]), (changed(safety={}), ["attack direct"]),
        (changed(seconds_per_token=None), ["seconds a token"]), (changed(quality={"suite": BEFORE["quality"]["suite"]}), ["surprise"]),
        (changed(handoffs={}), ["merged"]), (changed(handoffs={"merged": {"passed": False, "told": "x"}}), ["merged"]),
        (changed(handoffs=BEFORE["handoffs"] | {"served": {"passed": False, "told": "x"}}), ["served"]),
    ],
)  # fmt: skip
def test_each_other_measure(after: dict[str, Any], fell: list[str]) -> None:
    assert failed(after) == fell


def test_what_failed_stands_first() -> None:
    assert compare(BEFORE, changed(bytes=2000), Tolerances())[0].what == "bytes"


def test_other_rows_cannot_be_compared() -> None:
    with pytest.raises(BadRequest, match="its rows are others"):
        compare(BEFORE, suite("suite", [100.0] * 40, rows=[*ROWS[:-1], "new"]), Tolerances())
    with pytest.raises(BadRequest, match="tolerance is below 0"):
        Tolerances(size=-1)
