"""The page of an unlearning: forgotten, kept, what attacks bring back, and what is said now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.web.html import Html, tag
from genwright.web.plots import curves

MEASURES = (("probability", "probability"), ("rouge_l", "ROUGE-L recall"), ("truth_ratio", "truth ratio"))


def render(found: dict[str, Any]) -> str:
    """The page. What the model says is text: nothing in it is markup."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    title = f"Unlearning by {found['method']}"
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("style", Html(css)))
    body = tag("body", tag("main", tag("h1", title), *sections(found)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def in_report(found: dict[str, Any] | None) -> Html | None:
    """The part of a project's report, where it has such a stage."""
    return tag("section", tag("h1", f"Unlearning by {found['method']}"), *sections(found)) if found else None


def sections(found: dict[str, Any]) -> Iterable[Html]:
    """In the order of the page."""
    yield tag("section", tag("h2", "Forgotten"), tag("p", _forgotten(found)), _forget_table(found))
    yield tag(
        "section",
        tag("h2", "Kept"),
        tag("p", f"The bound: {found['keep']:g} of the ROUGE-L before."),
        _kept_table(found),
    )
    if found["benchmarks"]:
        told = f"The bound: {found['keep']:g} of the score before. A difference smaller than the last column will mostly not show."
        yield tag("section", tag("h2", "Benchmarks"), tag("p", told), _benchmarks(found["benchmarks"]))
    yield tag("section", tag("h2", "Taught again"), *_relearned(found))
    answers = zip(found["before"]["forget"]["answers"], found["after"]["forget"]["answers"])
    yield tag("section", tag("h2", "What it says of the rows to forget"), _table("", ("before", "after"), answers))


def _forgotten(found: dict[str, Any]) -> str:
    quality, verdict = found["forget_quality"], found["forgotten"]
    told = (
        f"{'Forgotten' if verdict['holds'] else 'Not forgotten'}: {found['forget_rows']} rows, {found['steps']} steps."
    )
    if quality["p_value"] is None:
        return f"{told} Without a model that never saw the rows, forget quality has no value."
    return f"{told} Forget quality (KS test of truth ratios) p = {quality['p_value']:.3g}; before, {quality['before']['p_value']:.3g}."


def _columns(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in (found["before"], found["after"], found["never_saw"]) if one is not None]


def _heads(found: dict[str, Any], first: str) -> list[str]:
    return [first, "before", "after", *(["never saw them"] if found["never_saw"] else [])]


def _forget_table(found: dict[str, Any]) -> Html:
    sides = [one["forget"] for one in _columns(found)]
    rows = [[title, *(f"{one[name]:.3f}" for one in sides)] for name, title in MEASURES]
    for attack, title in (("extraction", "extraction"), ("paraphrase", "other words")):
        for name in sides[0][attack]:
            rows.append(
                [f"{title}: {name.replace('rouge_l', 'ROUGE-L')}", *(f"{one[attack][name]:.3f}" for one in sides)]
            )
    return _table("The rows to forget", _heads(found, "measure"), rows)


def _kept_table(found: dict[str, Any]) -> Html:
    rows = []
    for name, one in found["kept"].items():
        verdict = "kept" if one["holds"] else "harmed"
        told = f"{name}: ROUGE-L, {verdict} ({one['difference']:+.3f}, {one['low']:+.3f} to {one['high']:+.3f})"
        rows.append([told, *(f"{side['kept'][name]['rouge_l']:.3f}" for side in _columns(found))])
    rows.append(["model utility", *(f"{one['utility']:.3f}" for one in _columns(found))])
    if found["before"]["bits_per_token"] is not None:
        rows.append(["texts: bits a token", *(f"{one['bits_per_token']:.3f}" for one in _columns(found))])
    return _table("The rest", _heads(found, "set"), rows)


def _benchmarks(benchmarks: dict[str, Any]) -> Html:
    verdict = lambda one: "unharmed" if one["holds"] else "harmed"
    rows = [
        (
            f"{name}: {one['metric']}, {verdict(one)}", one["rows"], f"{one['before']:.2f}", f"{one['after']:.2f}",
            f"{one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})", one["verdict"],
            "" if one["minimum_detectable_difference"] is None else f"{one['minimum_detectable_difference']:.1f}",
        )
        for name, one in benchmarks.items()
    ]  # fmt: skip
    heads = ("suite", "rows", "before", "after", "difference, 95 %", "by the paired test", "detectable")
    return _table("Asked before and after", heads, rows)


def _relearned(found: dict[str, Any]) -> Iterable[Html]:
    yield tag(
        "p", "Every other row is taught again; the line is the mean probability of the rows that were not taught."
    )
    lines = [(name, list(enumerate(one["probability"]))) for name, one in found["relearned"].items()]
    if len(lines[0][1]) > 1:
        yield curves(lines, x_title="steps of relearning", y_title="probability", label="Relearning")
    half = lambda one: "never" if one is None else f"after {one} steps"
    rows = [(name, half(one["half_back_after"])) for name, one in found["relearned"].items()]
    yield _table("Half of what it was before", ("model", "is back"), rows)


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> Html:
    cells = [tag("tr", *(tag("th", head, scope="col") for head in heads))]
    cells += [tag("tr", *(tag("td", value) for value in row)) for row in rows]
    return tag("table", tag("caption", caption) if caption else None, *cells)
