"""The table of precisions: ratios are taken within a round, and the page shows the kept result."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def precision(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import precision

    yield precision
    for name in {"precision", "machine", "clock", "finetune", "compare"} - before:
        sys.modules.pop(name, None)


def test_a_ratio_is_of_medians_within_a_round(precision):
    """The second round is ten times as slow; twice the time in each."""
    rounds = [{name: {"seconds": [slow, slow, 99.0]} for name in precision.WAYS} for slow in (1.0, 10.0, 1.0)]
    for one in rounds:
        one["qat"] = {"seconds": [2 * seconds for seconds in one["full-bf16"]["seconds"]]}
    assert precision.ratio(rounds, "qat") == 2.0
    assert precision.ratio(rounds, "full-bf16") == 1.0


def test_every_way_is_compared_with_one_of_its_method_or_full(precision):
    for way in precision.WAYS.values():
        assert precision.WAYS[way.against].method == {"qat": "full"}.get(way.method, way.method)


def test_the_page_shows_the_kept_result(precision):
    page = precision.PAGE.read_text(encoding="utf-8")
    result = json.loads(precision.RESULT.read_text(encoding="utf-8"))
    assert precision.page_with(page, result) == page
    assert page.count("| LoRA, int4 base |") == 1
