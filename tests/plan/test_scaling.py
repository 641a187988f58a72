"""Scaling laws: papers' values, a law found again from points it made, and cadences by a brute search."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

import pytest

from genwright.base.errors import DataError
from genwright.plan.cadence import cadence, daly, loss_per_day, young
from genwright.plan.scaling import BESIROGLU, HOFFMANN, Law, advise, enough, fit, serving_aware

EPOCH = Path(__file__).parents[3] / "shared/data/chinchilla_epoch/svg_extracted_data.csv"


def test_the_optimum_is_where_no_other_split_of_the_budget_is_better() -> None:
    for law in (BESIROGLU, HOFFMANN):
        parameters, tokens = law.optimum(1e22)
        assert 6 * parameters * tokens == pytest.approx(1e22)
        assert all(law.loss(parameters * k, tokens / k) > law.loss(parameters, tokens) for k in (0.9, 1.1))


def test_chinchilla_s_budget_gives_its_ratio() -> None:
    """Besiroglu 2024: about 20 tokens a parameter at Chinchilla's budget; Hoffmann's printed numbers say far more."""
    best = advise(5.76e23)["advice"]
    assert 15 < best[0]["tokens"] / best[0]["parameters"] < 26 < best[1]["tokens"] / best[1]["parameters"]
    assert best[0]["parameters_range"][0] < best[0]["parameters"] < best[0]["parameters_range"][1]


def test_a_law_is_found_again_from_its_own_points() -> None:
    true = Law("", "", 1.8, 480.0, 2000.0, 0.35, 0.366)
    points = [(n, d, true.loss(n, d)) for n in (1e7, 1e8, 1e9, 1e10) for d in (1e9, 1e10, 1e11)]
    found = fit(points)
    assert (found.E, found.alpha, found.beta) == pytest.approx((1.8, 0.35, 0.366), rel=0.02)


@pytest.mark.skipif(not EPOCH.exists(), reason="the published points are not here")
def test_the_published_points_give_the_corrected_law() -> None:
    """Besiroglu 2024 leaves out the five points of the fewest tokens a parameter."""
    with EPOCH.open() as stream:
        rows = [
            (float(row["Model Size"]), float(row["Training FLOP"]), float(row["loss"]))
            for row in csv.DictReader(stream)
        ]
    points = sorted(((n, c / (6 * n), loss) for n, c, loss in rows), key=lambda one: one[1] / one[0])[5:]
    found = fit(points)
    for name, error in zip(("E", "A", "B", "alpha", "beta"), BESIROGLU.errors, strict=True):
        assert abs(getattr(found, name) - getattr(BESIROGLU, name)) < error


def test_serving_much_wants_a_smaller_model_longer() -> None:
    alone = serving_aware(BESIROGLU, 2.2, 1.0)
    served = serving_aware(BESIROGLU, 2.2, 1e13)
    assert served["parameters"] < alone["parameters"] and served["tokens"] > alone["tokens"]


def test_enough_reads_off_its_own_curve_and_says_when_it_is_never_met() -> None:
    runs = [(n, 2.0 + 50 / n**0.3) for n in (1e5, 1e6, 1e7)]
    met = enough(runs, 2.2)
    assert met["parameters"] == pytest.approx((50 / 0.2) ** (1 / 0.3), rel=0.05)
    assert not enough(runs, 1.9)["met"]


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(DataError, match="at least 6 runs"):
        fit([(1e6, 1e9, 3.0)])
    with pytest.raises(DataError, match="at least 3 runs"):
        enough([(1e6, 3.0)], 2.0)


def test_the_interval_loses_least() -> None:
    save, mtbf = 30.0, 36000.0
    assert young(save, mtbf) == pytest.approx(math.sqrt(2 * save * mtbf))
    assert abs(daly(save, mtbf) / young(save, mtbf) - 1) < 0.03
    least = min(loss_per_day(t, save, mtbf) for t in range(100, 20000))
    assert loss_per_day(daly(save, mtbf), save, mtbf) == pytest.approx(least, rel=1e-3)


def test_a_job_of_more_machines_fails_as_many_times_as_often() -> None:
    one, many = cadence(30.0, 1, 1e6), cadence(30.0, 16, 1e6)
    assert many["job_mtbf_seconds"] == one["job_mtbf_seconds"] / 16
    lost = many["lost_seconds_per_day"]
    assert lost["half"] > lost["at"] < lost["twice"]


def test_the_spread_is_as_printed_and_moves_together() -> None:
    """Each number alone spreads as Besiroglu 2024 prints; A with alpha and B with beta, so that sizes spread far less."""
    drawn = [BESIROGLU.drawn(seed) for seed in range(300)]
    for name, error in zip(("E", "A", "B", "alpha", "beta"), BESIROGLU.errors, strict=True):
        values = [getattr(law, name) for law in drawn]
        assert 0.6 * error < statistics.pstdev(values) < 1.35 * error, name
    assert statistics.correlation([math.log(law.A) for law in drawn], [law.alpha for law in drawn]) > 0.99
    best = advise(5.76e23)["advice"][0]
    assert best["parameters_range"][1] / best["parameters_range"][0] < 3


def test_a_wider_budget_is_a_wider_range() -> None:
    alone, spread = (advise(1e22, spread=one)["advice"][1]["parameters_range"] for one in ((1.0, 1.0), (0.5, 2.0)))
    assert alone[0] == alone[1] and spread[1] / spread[0] == pytest.approx(
        4 ** (HOFFMANN.beta / (HOFFMANN.alpha + HOFFMANN.beta))
    )


def test_data_that_are_there_are_not_needed_again() -> None:
    first = advise(1e22, have_tokens=1e9)["advice"][0]
    assert first["tokens_needed"] == pytest.approx(first["tokens"] - 1e9)
    assert advise(1e22, have_tokens=1e15)["advice"][0]["tokens_needed"] == 0


def test_the_range_holds_ninety_of_a_hundred_laws() -> None:
    low, high = advise(1e22)["advice"][0]["parameters_range"]
    sizes = [BESIROGLU.drawn(seed).optimum(1e22)[0] for seed in range(400)]
    assert sum(low <= size <= high for size in sizes) == pytest.approx(360, abs=2)
