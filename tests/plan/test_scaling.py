"""Scaling laws: papers' values, a law found again from points it made, and cadences by a brute search."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import BadRequest, DataError
from genwright.catalogue.devices import device
from genwright.cli import main
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
    with pytest.raises(DataError, match="at least 3 runs of different sizes"):
        enough([(1e6, 3.0)] * 5, 2.0)


SIZES, LENGTHS = (1e7, 1e8, 1e9), (1e9, 1e10, 1e11)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda n, d: 1.0 + n / 1e9 + 5 / d**0.1, "does not fall with size"),
        (lambda n, d: 1.0 + 5 / n**0.1 + d / 1e11, "does not fall with tokens"),
    ],
)
def test_runs_without_a_law_are_refused(loss: Any, told: str) -> None:
    """A fit always finds five numbers; the same ones for a thousand times the money are no answer."""
    with pytest.raises(DataError, match=told):
        fit([(n, d, loss(n, d)) for n in SIZES for d in LENGTHS])


def test_noise_is_no_crash() -> None:
    chance = random.Random(0)
    points = [(10 ** chance.uniform(6, 10), 10 ** chance.uniform(8, 12), chance.uniform(2, 4)) for _ in range(12)]
    with contextlib.suppress(DataError):
        assert math.isfinite(fit(points).loss(1e9, 1e10))


@pytest.mark.parametrize(("axis", "told"), [(0, "1 different sizes"), (1, "1 different numbers of tokens")])
def test_runs_along_one_axis_say_nothing_of_the_other(axis: int, told: str) -> None:
    points = [
        (1e8, d, 3 + 10 / d**0.1) if axis == 0 else (d, 1e9, 3 + 10 / d**0.1) for d in (1e8, 2e8, 4e8, 8e8, 1e9, 2e9)
    ]
    with pytest.raises(DataError, match=told):
        fit(points)


@pytest.mark.parametrize("flops", [1e-6, math.inf, math.nan, 1e31])
def test_a_budget_that_cannot_be_meant_is_refused(flops: float) -> None:
    with pytest.raises(BadRequest, match="No training has such a budget"):
        advise(flops)


def test_it_says_when_it_extrapolates() -> None:
    """Hoffmann 2022: 70 M to 16 B parameters. A ten-thousandth of Chinchilla's budget is among its runs' own, a thousand times it is not."""
    assert not advise(1e20)["advice"][0]["extrapolates"]
    assert advise(5.76e26)["advice"][0]["extrapolates"] and advise(1e15)["advice"][0]["extrapolates"]


def test_each_unit_of_a_budget_is_the_same_work(capsys: pytest.CaptureFixture[str]) -> None:
    """An H100's sheet says 989 TFLOP/s in bf16: an hour at 40 % is 1.424e18 FLOP, 0.01648 petaflop/s-days."""
    found = []
    for words in (["--device-hours", "1000"], ["--petaflops-days", str(1000 * 3600 * 989e12 * 0.4 / 8.64e19)]):
        assert main(["scaling", "advise", *words, "--device", "h100", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["petaflops_days"] == pytest.approx(found[1]["petaflops_days"]) == pytest.approx(16.48, rel=1e-3)
    price = device("h100").usd_per_hour
    assert main(["scaling", "advise", "--usd", str(1000 * price), "--device", "h100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flops"] == pytest.approx(found[0]["flops"])
    # 20 tokens a parameter: sqrt(100 x 8.64e19 / 120) parameters, 1.697e11 tokens, of which 1e11 are there
    assert main(["scaling", "advise", "--petaflops-days", "100", "--have-tokens", "1e11"]) == 0
    assert "still needed" in (said := capsys.readouterr().out) and "6.971e+10" in said


def test_the_interval_loses_least() -> None:
    save, mtbf = 30.0, 36000.0
    assert young(save, mtbf) == pytest.approx(math.sqrt(2 * save * mtbf))
    assert abs(daly(save, mtbf) / young(save, mtbf) - 1) < 0.03
    least = min(loss_per_day(t, save, mtbf) for t in range(100, 20000))
    assert loss_per_day(daly(save, mtbf), save, mtbf) == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize(("save", "mtbf"), [(2.0, 3600.0), (30.0, 36000.0), (600.0, 86400.0)])
def test_half_and_twice_of_young_s_interval_lose_a_quarter_more(save: float, mtbf: float) -> None:
    """Delta / t + t / 2M at k times sqrt(2 delta M) is (1 / k + k) / 2 of its least, sqrt(2 delta / M)."""
    least = 86400 * math.sqrt(2 * save / mtbf)
    for factor in (0.5, 1.0, 2.0):
        expected = least * (1 / factor + factor) / 2
        assert loss_per_day(factor * young(save, mtbf), save, mtbf) == pytest.approx(expected)
    told = cadence(save, 1, mtbf)["lost_seconds_per_day"]
    assert 1.15 < told["half"] / told["at"] < 1.35 and 1.15 < told["twice"] / told["at"] < 1.35


def test_a_save_that_takes_as_long_as_machines_live_is_done_once_a_life() -> None:
    """Daly 2006: from two lives on the interval is a life, and no day loses more than a day."""
    assert daly(7200.0, 3600.0) == 3600.0 and loss_per_day(1.0, 7200.0, 3600.0) == 86400.0


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
