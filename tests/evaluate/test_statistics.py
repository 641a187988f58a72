"""Intervals that cover, tests that do not cry wolf, and the textbook's values."""

from __future__ import annotations

import numpy as np
import pytest

from genwright.base.errors import BadRequest
from genwright.evaluate.statistics import (
    bootstrap,
    corrected,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(10, 10, 72.25, 100.0), (0, 10, 0.0, 27.75), (5, 10, 23.66, 76.34), (81, 263, 25.53, 36.62)],
)
def test_wilson_by_hand(successes: int, n: int, low: float, high: float) -> None:
    """10 of 10: centre (10 + 1.9207) / 13.8415 = 0.8612, half width 0.1388. 81 of 263: Newcombe 1998, table I."""
    found = wilson(successes, n)
    assert (100 * found[0], 100 * found[1]) == pytest.approx((low, high), abs=0.01)
    interval = bootstrap([100.0] * successes + [0.0] * (n - successes))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)
    assert interval.value == pytest.approx(100 * successes / n)


@pytest.mark.parametrize(
    ("worse", "better", "p"), [(1, 8, 0.0390625), (0, 5, 0.0625), (0, 6, 0.03125), (4, 4, 1.0), (0, 0, 1.0)]
)
def test_mcnemar_by_hand(worse: int, better: int, p: float) -> None:
    """1 of 9: 2 * (1 + 9) / 512."""
    assert mcnemar(worse, better) == pytest.approx(p)
    assert mcnemar(better, worse) == pytest.approx(p)


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100() -> None:
    chance = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        interval = bootstrap(list(chance.gamma(4.0, 10.0, size=80)), seed=trial)
        covered += interval.low <= 40.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_rows_of_a_group_are_not_independent() -> None:
    """Every row four times: the plain interval shrinks by half, the grouped one stays as it was."""
    scores = list(np.random.default_rng(1).uniform(0, 99, size=60))
    width = lambda interval: interval.high - interval.low
    once = bootstrap(scores)
    again = bootstrap(scores * 4)
    grouped = bootstrap(scores * 4, groups=[str(row) for row in range(60)] * 4)
    assert width(again) == pytest.approx(width(once) / 2, rel=0.15)
    assert width(grouped) == pytest.approx(width(once), rel=0.15)


@pytest.mark.parametrize("binary", [True, False])
def test_two_equal_solutions_are_rarely_called_different(binary: bool) -> None:
    chance = np.random.default_rng(2)
    draw = (lambda: 100.0 * chance.integers(0, 2, size=60)) if binary else (lambda: chance.uniform(0, 99, size=60))
    better = sum(paired(list(draw()), list(draw()), seed=trial).better for trial in range(200))
    assert better / 200 <= 0.05


def test_a_real_gain_is_found_and_has_its_direction() -> None:
    chance = np.random.default_rng(3)
    before = chance.uniform(0, 60, size=100)
    gain = paired(list(before), list(before + chance.uniform(0, 10, size=100)))
    assert gain.better and gain.test == "sign-flip" and gain.difference == pytest.approx(5, abs=1)
    loss = paired(list(before + 5), list(before))
    assert not loss.better and loss.difference == pytest.approx(-5) and loss.high < 0


def test_binary_scores_get_the_exact_test_only_where_rows_are_independent() -> None:
    before, after = [100.0] + [0.0] * 19, [0.0] + [100.0] * 8 + [0.0] * 11
    assert paired(before, after).test == "mcnemar-exact"
    assert paired(before, after).p_value == pytest.approx(0.0390625)
    assert paired(before, after, groups=[str(row // 2) for row in range(20)]).test == "sign-flip"


def test_holm_by_hand() -> None:
    """0.01 * 3, 0.02 * 2, and 0.03 raised to the one before it."""
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_comparisons_told_together_are_corrected_together() -> None:
    """A gain on 6 of 20 rows, none lost: exact p = 2 / 2**6 = 0.03125. Alone it shows; of two equal ones neither does."""
    one = paired([0.0] * 20, [100.0] * 6 + [0.0] * 14)
    assert one.p_value == 0.03125 and one.better and corrected([one]) == [one]
    both = corrected([one, one])
    assert [(each.p_value, each.better, each.test) for each in both] == [(0.0625, False, "mcnemar-exact, Holm")] * 2
    sure = paired([0.0] * 20, [100.0] * 12 + [0.0] * 8)
    assert [each.better for each in corrected([sure, one])] == [True, True]


def test_the_smallest_difference_that_shows_is_found_4_times_in_5() -> None:
    n, spread = 200, 50.0
    effect = minimum_detectable_difference(n, spread)
    assert effect == pytest.approx(2.8016 * 50 / 200**0.5, rel=1e-3)
    chance = np.random.default_rng(4)
    found = sum(abs(chance.normal(effect, spread, size=n).mean()) > 1.96 * spread / n**0.5 for _ in range(2000))
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


def test_bad_scores_are_refused() -> None:
    for scores in ([], [1.0, float("nan")]):
        with pytest.raises(BadRequest, match="These are no scores"):
            bootstrap(scores)
    with pytest.raises(BadRequest, match="not of the same rows"):
        paired([1.0], [1.0, 2.0])
    with pytest.raises(BadRequest, match="Groups and scores do not pair up"):
        bootstrap([1.0, 2.0], groups=["a"])
    with pytest.raises(BadRequest, match="A test needs rows"):
        minimum_detectable_difference(0)


def test_a_row_that_counts_for_nothing_is_no_row_of_the_sample() -> None:
    """One row in six was judged, as of a judge that mostly talks nonsense: the others neither widen nor break an interval."""
    scores, weights, groups = [50.0, 80.0, 50.0, 20.0, 50.0, 50.0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0], list("aabbcc")
    assert bootstrap(scores, weights=weights, groups=groups) == bootstrap([80.0, 20.0], weights=[1.0, 1.0])
    assert paired(scores, [0.0] * 6, weights=weights) == paired([80.0, 20.0], [0.0] * 2, weights=[1.0, 1.0])
    with pytest.raises(BadRequest, match="No row of these counts"):
        bootstrap(scores, weights=[0.0] * 6)


def test_lower_is_better_where_the_metric_says_so() -> None:
    before, after = [5.0, 6.0, 5.5, 6.5, 7.0, 5.2, 6.1, 5.9], [1.0, 2.2, 1.4, 2.0, 2.9, 1.1, 2.2, 1.7]
    assert paired(before, after, higher_is_better=False).better
    assert not paired(before, after).better
    assert not paired(after, before, higher_is_better=False).better
