from pathlib import Path

import pytest

from genwright.plan import estimate
from genwright.web.summaries import QUANTITIES, compare, read_results, shortened


def test_every_quantity_that_a_plan_has_is_shown() -> None:
    assert tuple(QUANTITIES) == estimate.QUANTITIES


def test_ratio_is_measured_over_planned() -> None:
    (one,) = compare({"seconds": 100.0, "low": {"seconds": 80.0}, "high": {"seconds": 120.0}}, {"seconds": 130.0})
    assert one.ratio == pytest.approx(1.3)
    assert one.within is False
    assert one.show(one.planned) == "1.67 min"
    assert one.show_range() == "1.33 min to 2 min"


@pytest.mark.parametrize(("measured", "within"), [(80.0, True), (120.0, True), (79.9, False), (120.1, False)])
def test_the_ends_of_a_range_are_in_it(measured: float, within: bool) -> None:
    (one,) = compare({"seconds": 100.0, "low": {"seconds": 80.0}, "high": {"seconds": 120.0}}, {"seconds": measured})
    assert one.within is within


def test_unknown_is_not_zero_and_says_why() -> None:
    (one,) = compare({"joules": None, "unknown": {"joules": "watts are not stated"}}, {})
    assert one.ratio is None and one.within is None
    assert one.show(one.planned) == "unknown"
    assert one.why == "watts are not stated"


def test_nothing_planned_and_nothing_measured_is_nothing() -> None:
    assert compare(None, None) == []


def test_results_are_read_from_what_was_recorded(finished: Path) -> None:
    results = read_results(finished)
    assert results.name == "cloud-commands"
    assert [rung["name"] for rung in results.rungs()] == ["zero-shot", "few-shot", "lora"]
    assert results.scores("lora")["chrf"]["value"] == 62.9
    assert len(results.predictions("lora")) == 7
    assert results.look is not None and results.look["learned_share"] == 0.384


def test_a_folder_without_a_record_has_no_results(tmp_path: Path) -> None:
    results = read_results(tmp_path)
    assert results.stages == {} and results.events == [] and results.look is None


def test_a_long_list_of_reasons_is_cut_and_counted() -> None:
    assert shortened("a; b; c") == "a; b; c"
    assert shortened("a; b; c; d; e") == "a; b; c; and 2 more"
