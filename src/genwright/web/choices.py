"""What was chosen and why: the models that were tried, what each rung gained against its cost, and which rows still fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genwright.base.units import Bytes, Joules, Money, Seconds
from genwright.web.html import Html, tag
from genwright.web.plots import Step, climb_plot

TABLE = (
    "model",
    "family",
    "parameters",
    "licence",
    "zero-shot",
    "few-shot",
    "memory",
    "an answer",
    "1,000 answers",
    "energy",
    "",
)


def candidates(select: Mapping[str, Any]) -> list[list[str]]:
    """The table of select, in words, one line a model under TABLE's heads; memory, time, cost and energy are planned."""
    return [candidate_words(line) for line in select.get("table", [])]


def candidate_words(line: Mapping[str, Any]) -> list[str]:
    """One candidate."""
    planned = line.get("planned") or {}
    said = lambda key, unit: "unknown" if planned.get(key) is None else str(unit(planned[key]))
    parameters = line.get("parameters")
    return [
        str(line["name"]), str(line.get("family") or ""), f"{parameters:,}" if parameters else "", str(line.get("licence") or "not known"),
        score_words(line.get("zero-shot")), score_words(line.get("few-shot")), said("host_bytes", Bytes),
        said("seconds_per_answer", Seconds), said("usd_per_1000", Money), said("joules_per_1000", Joules),
        "; ".join(word for word in ("taken" if line.get("taken") else "", str(line.get("how", "")), str(line.get("why", ""))) if word),
    ]  # fmt: skip


def score_words(score: Mapping[str, Any] | None) -> str:
    """Such as 71.4 (61.8 to 79.8)."""
    return "–" if not score else f"{score['value']:.1f} ({score['low']:.1f} to {score['high']:.1f})"


def candidates_section(select: Mapping[str, Any]) -> Html | None:
    """The models that were tried, as a table."""
    rows = candidates(select)
    if not rows:
        return None
    lead = (
        "Each was tried as it is, untrained, on validation rows; memory, time, cost and energy are planned. "
        "The cheapest that is not shown to be worse than the best is taken."
    )
    looked_up = sorted(
        {str((line.get("planned") or {}).get("looked_up") or "") for line in select.get("table", [])} - {""}
    )
    notes = [tag("p", f"Cost and energy are at {one}.") for one in looked_up]
    return tag("section", tag("h2", "Models"), tag("p", lead, class_="lead"), _table("Candidates", TABLE, rows), *notes)


def climb_steps(rungs: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The rungs that have a score, with the seconds spent up to each; a stopped rung's time counts."""
    steps: list[Step] = []
    total = 0.0
    for rung in rungs:
        measured = rung.get("measured") or {}
        total += float(rung.get("spent_seconds") or measured.get("seconds") or 0.0)
        if rung.get("score"):
            score = rung["score"]
            steps.append((str(rung["name"]), total, score["value"], score["low"], score["high"]))
    return steps


def gains_section(adapt: Mapping[str, Any]) -> Html | None:
    """What each rung gained, against what it cost: a plot and a table."""
    steps = climb_steps(adapt.get("rungs", []))
    if not steps:
        return None
    plot = climb_plot(steps, target=adapt.get("target"), metric=str(adapt.get("metric", "")), unit="seconds")
    lead = f"Score on validation rows against the time spent so far. {adapt.get('why', '')}."
    table = _table("Gain per rung", GAINS, [gain_words(rung, before) for rung, before in _with_before(adapt["rungs"])])
    return tag("section", tag("h2", "The ladder"), tag("p", lead, class_="lead"), tag("figure", plot), table)


GAINS = ("rung", "score", "gain", "time", "money", "energy", "")


def gain_words(rung: Mapping[str, Any], before: float | None) -> list[str]:
    """One rung's line under GAINS."""
    score, measured = rung.get("score"), rung.get("measured") or {}
    said = lambda value, unit: "unknown" if value is None else str(unit(value))
    gain = "" if score is None or before is None else f"{score['value'] - before:+.1f}"
    seconds = rung.get("spent_seconds", measured.get("seconds"))
    return [
        str(rung["name"]), score_words(score), gain, said(seconds, Seconds), said(measured.get("usd"), Money),
        said(measured.get("joules"), Joules), str(rung.get("skipped", "")),
    ]  # fmt: skip


def _with_before(rungs: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float | None]]:
    pairs: list[tuple[Mapping[str, Any], float | None]] = []
    before = None
    for rung in rungs:
        pairs.append((rung, before))
        before = rung["score"]["value"] if rung.get("score") else before
    return pairs


def failures_section(errors: Mapping[str, Any]) -> Html | None:
    """What each rung fixed and broke, with examples, and the rows that still fail in clusters."""
    found, changes = errors.get("clusters", []), errors.get("changes", [])
    if not found and not changes:
        return None
    rows = [[one["before"], one["after"], str(one["fixed"]), str(one["broke"])] for one in changes]
    lead = f"{errors.get('failing', 0)} of {errors.get('rows', 0)} validation rows still fail with {errors.get('rung', '')}."
    return tag(
        "section", tag("h2", "What still fails"), tag("p", lead, class_="lead"),
        *(_cluster(one) for one in found),
        _table("From rung to rung", ("before", "after", "fixed", "broke"), rows) if rows else None,
        *(part for one in changes for part in _changed(one)),
    )  # fmt: skip


def _cluster(one: Mapping[str, Any]) -> Html:
    return _examples("cluster lost", ", ".join(one["words"]), f"{one['rows']} rows", one["examples"])


def _changed(one: Mapping[str, Any]) -> list[Html]:
    """Examples of what a rung fixed and broke; nothing where a record has none."""
    told = (("gained", "fixed", one.get("fixed_examples")), ("lost", "broke", one.get("broke_examples")))
    return [
        _examples(class_, f"{one['after']} {verb}, after {one['before']}", f"{len(shown)} of {one[verb]} rows", shown)
        for class_, verb, shown in told
        if shown
    ]


def _examples(class_: str, title: str, count: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    answers = lambda row: tag("dl", *_said("wanted", row["reference"]), *_said("said", row["prediction"]))
    cards = [tag("article", tag("p", row["prompt"], class_="prompt"), answers(row)) for row in rows]
    return tag("div", tag("h3", f"{title} ", tag("small", count)), *cards, class_=f"samples {class_}")


def _said(name: str, words: str) -> tuple[Html, Html]:
    return tag("dt", name), tag("dd", tag("code", words or "(nothing)"))


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    cells = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    heads = tag("tr", *(tag("th", name, scope="col") for name in head))
    return tag("div", tag("table", tag("caption", caption), tag("thead", heads), tag("tbody", *cells)), class_="scroll")
