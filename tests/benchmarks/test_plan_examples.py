"""The page's table of examples is what the benchmark kept, and says what it is meant to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import plan_examples  # noqa: E402


def test_the_page_has_the_rows_that_were_kept() -> None:
    rows = json.loads(plan_examples.OUT.read_text(encoding="utf-8"))["rows"]
    written = (
        plan_examples.PAGE.read_text(encoding="utf-8").split(plan_examples.MARKS[0])[1].split(plan_examples.MARKS[1])[0]
    )
    assert written == plan_examples.table(rows), "run: python benchmarks/plan_examples.py --page"


def test_a_row_by_hand() -> None:
    """110 MiB planned and 100 measured is 10 % too much; a rung without a step has no live bytes."""
    host = {"planned": 110 * 2**20, "measured": 100 * 2**20, "error": 0.1}
    rung = {"quantities": {"host_bytes": host, "seconds": {"planned": 1.0, "measured": 2.0, "error": -0.5}}}
    rows = {"a": {"lora": rung | {"live_bytes": {"planned": 5, "measured": 6}}}, "b": {"left_out": "no data"}}
    assert plan_examples.table(rows).splitlines()[2:] == [
        "| a, lora | 110 · 100 | +10 % | 1.0 · 2.0 | -50 % | -16.667 % |"
    ]
    kept = plan_examples.summary(rows)
    assert (
        kept["host_bytes"]["kept"] == 1 and kept["seconds"]["kept"] == 0 and kept["live_bytes"] == {"equal": 0, "of": 1}
    )
