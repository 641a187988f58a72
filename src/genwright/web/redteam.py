"""The page of a red-team campaign: rates with intervals, over-refusal beside them, and every transcript."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.web.html import Html, join, tag

SHOWN = 200
"""Transcripts on the page; redteam.json has all."""


def render(found: dict[str, Any]) -> str:
    """The page. Transcripts hold what was asked and answered, as text: nothing in them is markup."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    title = f"Red team: {found['target']}"
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("style", Html(css)))
    body = tag("body", tag("main", tag("h1", title), *sections(found)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def sections(found: dict[str, Any]) -> Iterable[Html]:
    """In the order of the page."""
    how = f"Scored by {', '.join(found['scored_by'])}. Goals: {found['goals_from']}. Crescendo's attacker: {found['attacker']}."
    yield tag("section", tag("p", how), _attacks(found["attacks"]), _over_refusal(found["over_refusal"]))
    if found["probes"]:
        yield tag("section", tag("h2", "Probes"), *(_probe(name, one) for name, one in found["probes"].items()))
    yield tag("section", tag("h2", "Transcripts"), *_transcripts(found["transcripts"]))


def _attacks(attacks: dict[str, Any]) -> Html:
    heads = (
        "attack",
        "goals",
        "reached",
        "95 % interval",
        "attempts",
        "refused",
        "unjudged",
        "unanswered",
        "steps back",
    )
    rows = [
        (name, one["goals"], f"{one['rate']:.0f} %", f"{one['low']:.0f} to {one['high']:.0f} %", one["attempts"], one["refused"],
         one["unjudged"], one["unanswered"], one["backtracks"])
        for name, one in attacks.items()
    ]  # fmt: skip
    return _table("What the attacks reached", heads, rows)


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> Html:
    cells = [tag("tr", *(tag("th", head, scope="col") for head in heads))]
    cells += [tag("tr", *(tag("td", value) for value in row)) for row in rows]
    return tag("table", tag("caption", caption), *cells)


def _over_refusal(over: dict[str, Any]) -> Html:
    told = f"{over['refused']} of {over['prompts']} harmless look-alikes were refused ({over['low']:.0f} to {over['high']:.0f} %)."
    return tag(
        "div", tag("h2", "Over-refusal"), tag("p", told), tag("ul", *(tag("li", prompt) for prompt in over["which"]))
    )


def _probe(name: str, found: dict[str, Any]) -> Html:
    values = [
        (key, f"{value:.1f}" if isinstance(value, float) else value)
        for key, value in found.items()
        if not isinstance(value, dict)
    ]
    return _table(name, ("measure", "value"), values)


def _transcripts(transcripts: list[dict[str, Any]]) -> Iterable[Html]:
    ordered = sorted(transcripts, key=lambda one: not one["verdict"]["success"])
    if len(ordered) > SHOWN:
        yield tag("p", f"{SHOWN} of {len(ordered)}, those that succeeded first; redteam.json has all.")
    for one in ordered[:SHOWN]:
        yield _transcript(one)


def _transcript(one: dict[str, Any]) -> Html:
    verdict = one["verdict"]
    outcome = {True: "reached", False: "not reached", None: "unjudged"}[verdict["success"]]
    told = (
        f"{one['attack']} {one['variant']}: {outcome}{', refused' if verdict['refused'] else ''} (by {verdict['how']})"
    )
    turns = [join([tag("dt", turn["role"]), tag("dd", turn["content"])]) for turn in one["transcript"]]
    return tag("details", tag("summary", told), tag("p", one["goal"]["text"]), tag("dl", *turns))
