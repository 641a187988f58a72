"""The choices of a project as the page tells them: candidates, the ladder's gains against costs, and what still fails."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from genwright.web.choices import (
    candidates,
    candidates_section,
    climb_steps,
    failures_section,
    gain_words,
    gains_section,
)
from genwright.web.plots import climb_plot

SCORE = {"value": 71.4, "low": 61.8, "high": 79.8, "n": 112}
RUNGS = [
    {"name": "zero-shot", "skipped": "", "score": {"value": 10.0, "low": 5.0, "high": 15.0}, "spent_seconds": 5.0, "measured": {"seconds": 4.0}},
    {"name": "full", "skipped": "full: stopped", "spent_seconds": 20.0},
    {"name": "lora", "skipped": "", "score": SCORE, "spent_seconds": 30.0, "measured": {"seconds": 29.0, "usd": 0.5}},
]  # fmt: skip


def test_a_model_that_was_not_tried_says_why_and_unknown_costs_say_unknown() -> None:
    lines = [
        {"name": "a", "family": "encoder", "parameters": 22_700_000, "licence": "MIT", "few-shot": SCORE, "zero-shot": None,
         "planned": {"host_bytes": 2**30, "seconds_per_answer": 0.5}, "taken": True, "how": "nearest class", "why": ""},
        {"name": "b", "planned": {}, "why": "not on this machine"},
    ]  # fmt: skip
    first, second = candidates({"table": lines})
    assert (
        first[4:7] == ["–", "71.4 (61.8 to 79.8)", "1 GiB"]
        and first[8] == "unknown"
        and first[-1] == "taken; nearest class"
    )
    assert second[-1] == "not on this machine" and second[6] == "unknown"
    assert '<th scope="row">a</th>' in str(candidates_section({"table": lines}))
    assert candidates_section({}) is None
    assert "Cost and energy are at" not in str(candidates_section({"table": lines}))
    lines[0]["planned"]["looked_up"] = "0.05 USD an hour: the catalogue's cpu-2, not stated by the project"  # type: ignore[index]
    page = str(candidates_section({"table": lines}))
    assert (
        page.count("Cost and energy are at 0.05 USD an hour: the catalogue&#x27;s cpu-2, not stated by the project.")
        == 1
    )


def test_time_of_a_stopped_rung_counts_in_what_was_spent() -> None:
    assert [(name, spent) for name, spent, *_ in climb_steps(RUNGS)] == [("zero-shot", 5.0), ("lora", 55.0)]
    assert gain_words(RUNGS[2], 10.0)[2] == "+61.4"
    page = str(gains_section({"rungs": RUNGS, "metric": "accuracy", "target": 50.0, "why": "why"}))
    assert "full: stopped" in page and "71.4" in page
    assert gains_section({"rungs": []}) is None


def test_the_plot_is_xml_of_its_own_and_higher_scores_stand_higher() -> None:
    drawn = ET.fromstring(climb_plot(climb_steps(RUNGS), target=50.0, metric="accuracy", unit="seconds"))
    circles = [part for part in drawn.iter() if part.tag.endswith("circle")]
    (left, low), (right, high) = ((float(one.get("cx", "")), float(one.get("cy", ""))) for one in circles)
    assert left < right and high < low


def test_failing_rows_are_escaped() -> None:
    cluster = {"rows": 2, "words": ["disk"], "examples": [{"prompt": "<b>", "reference": "r", "prediction": ""}]}
    page = str(failures_section({"clusters": [cluster], "changes": [], "failing": 2, "rows": 9, "rung": "lora"}))
    assert "&lt;b&gt;" in page and "(nothing)" in page and "2 of 9" in page
    assert failures_section({}) is None


def test_examples_of_what_a_rung_fixed_and_broke_stand_under_its_name() -> None:
    row = lambda words: {"prompt": words, "reference": "r", "prediction": "p"}
    change = {"before": "few-shot", "after": "lora", "fixed": 7, "broke": 2}
    shown = {"fixed_examples": [row("mended one")], "broke_examples": [row("spoilt one")]}
    page = str(failures_section({"changes": [{**change, **shown}], "failing": 3, "rows": 9, "rung": "lora"}))
    fixed, broke = page.index("lora fixed, after few-shot"), page.index("lora broke, after few-shot")
    assert fixed < page.index("mended one") < broke < page.index("spoilt one")
    assert "1 of 7 rows" in page and "1 of 2 rows" in page
    assert "mended" not in str(failures_section({"changes": [change]}))
