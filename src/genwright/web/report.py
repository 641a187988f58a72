"""The report: one HTML page that needs nothing but itself. What was promised, what came of it, and how sure we are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from genwright import __version__
from genwright.base.errors import BadRequest
from genwright.web.choices import candidates_section, failures_section, gains_section
from genwright.web.html import Html, join, tag
from genwright.web.plots import interval_track
from genwright.web.report_parts import interval_words, metric_of, seconds_words, section, span_of
from genwright.web.report_rows import facts, look, samples
from genwright.web.report_scores import loss, paired, planned, scores
from genwright.web.summaries import SELDOM, STAGES, Results, read_results, shortened
from genwright.web.unlearn import in_report

STATES = {"stage_reused": "reused", "stage_failed": "failed", "stage_stopped": "stopped", "stage_finished": "done"}
"""What an event makes of its stage."""

REUSED = "nothing that it depends on has changed"
"""Why a stage is reused: the one reason there is."""


def render(project_folder: str | Path) -> str:
    """The page for a project. Errors: BadRequest when nothing was applied yet."""
    results = read_results(Path(project_folder))
    if not results.stages:
        raise BadRequest(
            f"There is nothing to report in {project_folder}.",
            wanted="a project of which at least one stage was applied",
            do="run `genwright apply` first",
        )
    return page(results)


def page(results: Results) -> str:
    """The page for results already read."""
    sections = [
        header(results),
        stages(results),
        candidates_section(results.stages.get("select", {})),
        gains_section(results.stages.get("adapt", {})),
        scores(results),
        paired(results),
        in_report(results.stages.get("unlearn")),
        loss(results),
        planned(results),
        samples(results),
        failures_section(results.stages.get("adapt", {}).get("errors", {})),
        look(results),
        facts(results),
    ]
    body = tag("body", tag("main", *(section for section in sections if section)), _footer())
    return "<!doctype html>\n" + tag("html", _head(results), body, lang="en")


def _head(results: Results) -> Html:
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{results.name} · Genwright report"),
        tag("style", Html(css)),
    )


# --- the verdict ------------------------------------------------------------------------------------------------------


def header(results: Results) -> Html:
    """The answer first: was the target met, by what, and how sure."""
    adapt, evaluate = results.stages.get("adapt", {}), results.stages.get("evaluate", {})
    chosen, metric = adapt.get("chosen", ""), metric_of(results)
    score = results.scores(chosen).get(metric)
    met = evaluate.get("met", adapt.get("met"))
    return tag(
        "header",
        tag("p", "Genwright report", class_="eyebrow"),
        tag("h1", results.name),
        tag(
            "div",
            tag("p", _verdict(met, chosen, evaluate), class_=f"verdict {_mood(met)}"),
            _big_score(score, metric, evaluate.get("target", adapt.get("target"))) if score else None,
            class_="summary",
        ),
        tag("p", _because(results), class_="lead"),
    )


def _mood(met: bool | None) -> str:
    return "open" if met is None else "met" if met else "missed"


def _verdict(met: bool | None, chosen: str, evaluate: dict[str, Any]) -> Html:
    if not evaluate:
        return join([tag("strong", "Not finished."), " The project has not been evaluated yet."])
    if evaluate.get("target") is None:
        return join([tag("strong", "No target was set."), f" The best rung is {chosen}."])
    if met:
        return join([tag("strong", "Target met."), f" {chosen} is as high as this project had to climb."])
    return join([tag("strong", "Target not met."), f" {chosen} came closest of the rungs that were tried."])


def _big_score(score: dict[str, Any], metric: str, target: float | None) -> Html:
    low, high = score.get("low", score["value"]), score.get("high", score["value"])
    return tag(
        "div",
        tag(
            "p", tag("span", f"{score['value']:.1f}", class_="figure"), tag("span", metric, class_="unit"), class_="big"
        ),
        interval_track(score["value"], low, high, span=span_of(score["value"], high), mark=target, strong=True),
        tag("p", interval_words(score), f" · target {target:g}" if target is not None else "", class_="quiet"),
        class_="score",
    )


def _because(results: Results) -> str:
    scope, select = results.stages.get("scope", {}), results.stages.get("select", {})
    model = f" Model: {select['model']}." if select.get("model") else ""
    task = f"Task: {scope['task']}." if scope.get("task") else ""
    return " ".join(part for part in (task + model, str(results.stages.get("adapt", {}).get("why", ""))) if part)


# --- the stages -------------------------------------------------------------------------------------------------------


def stages(results: Results) -> Html:
    """The project's stages in order: done, reused or stopped, how long each took, and why it ran or was reused."""
    known = {str(event["stage"]) for event in results.events if event.get("stage")} | set(results.stages)
    told = {stage: _told(results, stage) for stage in STAGES if stage not in SELDOM or stage in known}
    whole = sum(seconds or 0 for _, seconds, _ in told.values()) or 1
    cards = [_stage_card(stage, *told[stage], whole) for stage in told]
    return section("Stages", None, tag("ol", *cards, class_="stages"))


def _told(results: Results, stage: str) -> tuple[str, float | None, str]:
    """(state, seconds, why) of a stage from the events; the latest word counts."""
    state, seconds, why = ("done" if stage in results.stages else "not run"), None, ""
    for event in results.events:
        if event.get("stage") != stage:
            continue
        kind = event["kind"]
        state = STATES.get(kind, state)
        if kind in ("stage_started", "stage_failed", "stage_reused"):
            why = str(event.get("why") or event.get("error") or (REUSED if kind == "stage_reused" else why))
        seconds = event.get("seconds", seconds) if kind == "stage_finished" else seconds
    return state, seconds, why


def _stage_card(stage: str, state: str, seconds: float | None, why: str, whole: float) -> Html:
    share = 100 * (seconds or 0) / whole
    return tag(
        "li",
        tag("h3", stage),
        tag("p", seconds_words(seconds), class_="time"),
        tag("div", tag("i", style=f"width:{share:.1f}%"), class_="bar", aria_hidden="true"),
        tag("p", tag("b", state), f" · {shortened(why)}" if why else "", class_="quiet"),
        class_=state.replace(" ", "-"),
    )


# --- the scores -------------------------------------------------------------------------------------------------------


# --- the training -----------------------------------------------------------------------------------------------------


# --- the rows ---------------------------------------------------------------------------------------------------------


# --- the small print --------------------------------------------------------------------------------------------------


def _footer() -> Html:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return tag("footer", f"Made by Genwright {__version__} on {made}. This page loads nothing from anywhere.")
