"""The report: one HTML page that needs nothing but itself. What was promised, what came of it, and how sure we are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genwright import __version__
from genwright.base.errors import BadRequest
from genwright.base.units import Bytes, Seconds
from genwright.web.choices import candidates_section, failures_section, gains_section
from genwright.web.html import Html, join, tag
from genwright.web.plots import curves, difference_track, interval_track, ratio_track
from genwright.web.summaries import SELDOM, STAGES, Comparison, Results, compare, read_results, shortened
from genwright.web.unlearn import in_report

SAMPLES = 4
"""Rows shown of each kind: gained, lost, and wrong both times."""

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


def _section(title: str, lead: Any, *children: Any) -> Html:
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children)


# --- the verdict ------------------------------------------------------------------------------------------------------


def header(results: Results) -> Html:
    """The answer first: was the target met, by what, and how sure."""
    adapt, evaluate = results.stages.get("adapt", {}), results.stages.get("evaluate", {})
    chosen, metric = adapt.get("chosen", ""), _metric(results)
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


def _metric(results: Results) -> str:
    stages = results.stages
    return str(
        next((stages[s]["metric"] for s in ("evaluate", "adapt", "scope") if stages.get(s, {}).get("metric")), "")
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
        interval_track(score["value"], low, high, span=_span(score["value"], high), mark=target, strong=True),
        tag("p", _interval_words(score), f" · target {target:g}" if target is not None else "", class_="quiet"),
        class_="score",
    )


def _span(*values: float) -> tuple[float, float]:
    return (0.0, 100.0 if max(values) <= 100 else max(values) * 1.05)


def _interval_words(score: dict[str, Any]) -> str:
    rows = f", {score['n']} test rows" if score.get("n") else ""
    return f"95 % interval {score.get('low', score['value']):.1f} to {score.get('high', score['value']):.1f}{rows}"


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
    return _section("Stages", None, tag("ol", *cards, class_="stages"))


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
        tag("p", _seconds(seconds), class_="time"),
        tag("div", tag("i", style=f"width:{share:.1f}%"), class_="bar", aria_hidden="true"),
        tag("p", tag("b", state), f" · {shortened(why)}" if why else "", class_="quiet"),
        class_=state.replace(" ", "-"),
    )


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else str(Seconds(seconds))


# --- the scores -------------------------------------------------------------------------------------------------------


def scores(results: Results) -> Html | None:
    """A dot and its interval for every rung, then every metric in a table."""
    evaluate = results.stages.get("evaluate", {})
    by_rung: dict[str, dict[str, Any]] = evaluate.get("scores", {})
    metric = _metric(results)
    rows = [(rung, by_rung[rung][metric]) for rung in by_rung if metric in by_rung[rung]]
    if not rows:
        return None
    span = _span(*(score.get("high", score["value"]) for _, score in rows))
    chosen, target = results.stages.get("adapt", {}).get("chosen"), evaluate.get("target")
    dots = [_dot_row(rung, score, span, target, rung == chosen) for rung, score in rows]
    lead = f"{metric} on the test rows, which no rung was chosen or trained on. Dot: score. Line: 95 % interval."
    lead += f" Dashed: the target, {target:g}." if target is not None else ""
    return _section(
        "Scores", lead, tag("div", *dots, _scale(span), class_="dots"), _all_metrics(by_rung, metric, chosen)
    )


def _dot_row(rung: str, score: dict[str, Any], span: tuple[float, float], target: float | None, chosen: bool) -> Html:
    low, high = score.get("low", score["value"]), score.get("high", score["value"])
    return tag(
        "div",
        tag("span", rung, tag("em", "chosen") if chosen else None, class_="name"),
        interval_track(score["value"], low, high, span=span, mark=target, strong=chosen),
        tag("span", f"{score['value']:.1f}", class_="value"),
        class_="dot chosen" if chosen else "dot",
    )


def _scale(span: tuple[float, float]) -> Html:
    steps = [span[0] + (span[1] - span[0]) * part / 4 for part in range(5)]
    return tag(
        "div",
        tag("span"),
        tag("div", *(tag("i", f"{step:.0f}") for step in steps), class_="ruler"),
        tag("span"),
        class_="dot",
    )


def _all_metrics(by_rung: dict[str, dict[str, Any]], metric: str, chosen: str | None) -> Html | None:
    names = list(dict.fromkeys(name for scores in by_rung.values() for name in scores))
    if len(names) < 2:
        return None
    names.sort(key=lambda name: name != metric)
    rows = [
        [tag("th", rung, scope="row"), *(_score_cell(by_rung[rung].get(name)) for name in names)] for rung in by_rung
    ]
    classes = ["chosen" if rung == chosen else None for rung in by_rung]
    return _table("Every metric", ["rung", *names], rows, classes)


def _score_cell(score: dict[str, Any] | None) -> Html:
    if score is None:
        return tag("td", "–", class_="number")
    interval = f"{score['low']:.1f}–{score['high']:.1f}" if score.get("low") is not None else ""
    return tag("td", f"{score['value']:.1f}", tag("small", interval), class_="number")


def paired(results: Results) -> Html | None:
    """Differences between rungs on the same rows, with interval and p-value."""
    pairs = results.stages.get("evaluate", {}).get("paired", [])
    if not pairs:
        return None
    reach = max(abs(pair[end]) for pair in pairs for end in ("low", "high", "difference")) * 1.1 or 1.0
    lead = (
        "Each row is answered by both, so luck in the choice of rows cancels. "
        "A line that does not touch zero is a real difference."
    )
    return _section(
        "Compared on the same rows", lead, tag("div", *(_pair(pair, reach) for pair in pairs), class_="dots pairs")
    )


def _pair(pair: dict[str, Any], reach: float) -> Html:
    p = pair["p_value"]
    words = f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} · {pair['test']}"
    verdict = "better" if pair["better"] else "no clear gain"
    return tag(
        "div",
        tag("span", f"{pair['before']} → {pair['after']}", tag("em", verdict), class_="name"),
        difference_track(pair["difference"], pair["low"], pair["high"], reach=reach, better=pair["better"]),
        tag("span", f"{pair['difference']:+.1f}", tag("small", words), class_="value"),
        class_="dot",
    )


# --- the training -----------------------------------------------------------------------------------------------------


def loss(results: Results) -> Html | None:
    """Training and validation loss over steps for every rung that was trained."""
    drawn = [_loss_of(rung, *lines) for rung, lines in loss_lines(results).items()]
    if not drawn:
        return None
    return _section("Loss", "Nats per learned token. Faint: each step. Solid: its running mean.", *drawn)


def loss_lines(results: Results) -> dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
    """Rung -> (training points, validation points). A step done again after a kill counts once, with its last word."""
    train: dict[str, dict[float, float]] = {}
    valid: dict[str, dict[float, float]] = {}
    for event in results.events:
        rung, step = str(event.get("rung", "")), event.get("step")
        if step is None:
            continue
        if event["kind"] == "step" and event.get("loss") is not None:
            train.setdefault(rung, {})[step] = float(event["loss"])
        if event["kind"] == "validation" and event.get("loss") is not None:
            valid.setdefault(rung, {})[step] = float(event["loss"])
    return {rung: (sorted(train[rung].items()), sorted(valid.get(rung, {}).items())) for rung in train}


def _loss_of(rung: str, train: list[tuple[float, float]], valid: list[tuple[float, float]]) -> Html:
    last = f"training ends at {train[-1][1]:.3f}" + (f", validation at {valid[-1][1]:.3f}" if valid else "")
    legend = tag(
        "figcaption",
        tag("b", rung or "training"),
        tag("span", f"training {train[-1][1]:.3f}", class_="key key-0"),
        tag("span", f"validation {valid[-1][1]:.3f}", class_="key key-1") if valid else None,
    )
    label = f"Loss of {rung} over {train[-1][0]:.0f} steps: {last}"
    lines = [("training", train), ("validation", valid)]
    return tag("figure", legend, curves(lines, x_title="step", y_title="loss", label=label))


def planned(results: Results) -> Html | None:
    """What the plan foretold beside what was measured, for every rung that has either."""
    tables = [_planned_table(rung) for rung in results.rungs() if rung.get("planned") or rung.get("measured")]
    if not any(tables):
        return None
    lead = (
        "The plan was made before anything was spent. The band is its range, the dot is the measurement, "
        "the middle line is a perfect plan; the ends are half and double."
    )
    return _section("Planned beside measured", lead, *tables)


def _planned_table(rung: dict[str, Any]) -> Html | None:
    rows = compare(rung.get("planned"), rung.get("measured"))
    if not rows:
        return None
    head = ["", "planned", "measured", "ratio", tag("span", tag("i", "½"), tag("i", "1"), tag("i", "2"), class_="ends")]
    return _table(rung["name"], head, [_planned_cells(row) for row in rows])


def _planned_cells(row: Comparison) -> list[Html]:
    known = row.planned or 0.0
    plot: Html | str = ""
    if row.ratio is not None and known > 0:
        low, high = (None if end is None else end / known for end in (row.low, row.high))
        plot = ratio_track(row.ratio, low, high, within=row.within)
    mark = {True: "in range", False: "outside", None: ""}[row.within]
    return [
        tag("th", row.title, scope="row"),
        tag(
            "td",
            row.show(row.planned),
            tag("small", row.show_range() or row.why),
            class_="number reason" if row.why else "number",
        ),
        tag("td", "–" if row.measured is None else row.show(row.measured), class_="number"),
        tag(
            "td",
            "–" if row.ratio is None else f"× {row.ratio:.2f}",
            tag("small", mark),
            class_=_ratio_class(row.within),
        ),
        tag("td", plot, class_="plot"),
    ]


def _ratio_class(within: bool | None) -> str:
    return "number outside" if within is False else "number"


# --- the rows ---------------------------------------------------------------------------------------------------------


def samples(results: Results) -> Html | None:
    """Test rows where the chosen rung won, lost, or did as before, beside the answers of the rung below it."""
    evaluate, chosen = results.stages.get("evaluate", {}), results.stages.get("adapt", {}).get("chosen", "")
    before = _rung_below(list(evaluate.get("scores", {})), chosen)
    after_rows = results.predictions(chosen)
    if not after_rows:
        return None
    before_rows = {_prompt(row): row for row in results.predictions(before)}
    both = [(before_rows.get(_prompt(row)), row) for row in after_rows]
    groups = [
        ("Gained", [pair for pair in both if pair[0] and pair[0]["score"] < pair[1]["score"]]),
        ("Lost", [pair for pair in both if pair[0] and pair[0]["score"] > pair[1]["score"]]),
        ("Unchanged", [pair for pair in both if not pair[0] or pair[0]["score"] == pair[1]["score"]]),
    ]
    count = ", ".join(f"{len(rows)} {name.lower()}" for name, rows in groups)
    lead = f"{chosen} beside {before}, row by row: {count}." if before else f"Answers of {chosen}."
    return _section("Answers", lead, *(_sample_group(name, rows, before, chosen) for name, rows in groups if rows))


def _rung_below(rungs: list[str], chosen: str) -> str:
    """The rung that the chosen one is compared with: the one climbed just before it, or else the first other one."""
    below = rungs[: rungs.index(chosen)] if chosen in rungs else []
    return below[-1] if below else next((rung for rung in rungs if rung != chosen), "")


def _sample_group(name: str, rows: Sequence[Any], before: str, after: str) -> Html:
    cards = [_sample(old, new, before, after) for old, new in rows[:SAMPLES]]
    return tag("div", tag("h3", f"{name} ", tag("small", f"{len(rows)}")), *cards, class_=f"samples {name.lower()}")


def _sample(old: dict[str, Any] | None, new: dict[str, Any], before: str, after: str) -> Html:
    return tag(
        "article",
        tag("p", _prompt(new), class_="prompt"),
        tag(
            "dl",
            *_answer("wanted", str(new.get("reference", "")), None),
            *(_answer(before, str(old.get("prediction", "")), old.get("score")) if old else ()),
            *_answer(after, str(new.get("prediction", "")), new.get("score")),
        ),
    )


def _prompt(row: dict[str, Any]) -> str:
    prompt = row.get("prompt", "")
    if isinstance(prompt, list):
        return "\n".join(str(message.get("content", "")) for message in prompt if isinstance(message, dict))
    return str(prompt)


def _answer(name: str, words: str, score: float | None) -> Iterable[Html]:
    yield tag("dt", name, tag("small", f"{score:.0f}") if score is not None else None)
    yield tag("dd", tag("code", words or "(nothing)"))


def look(results: Results) -> Html | None:
    """One decoded sample with its learned tokens marked, and what the data are like in tokens."""
    seen = results.look
    if not seen:
        return None
    pieces = [tag("mark", piece) if learned else tag("span", piece) for piece, learned in seen.get("sample", [])]
    sample = tag("pre", *pieces, class_="tokens") if pieces else None
    warnings = [tag("li", warning) for warning in seen.get("warnings", [])]
    return _section(
        "What the model was shown",
        "One training row as the model reads it; marked tokens are the ones it learns to write.",
        sample,
        tag("dl", *(part for pair in _look_facts(seen) for part in pair), class_="facts"),
        tag("ul", *warnings, class_="warnings") if warnings else None,
    )


def _look_facts(seen: dict[str, Any]) -> list[tuple[Html, Html]]:
    lengths = seen.get("lengths") or {}
    told = [
        ("format", seen.get("format")),
        ("rows", seen.get("rows")),
        ("tokens that are learned", _share(seen.get("learned_share"))),
        ("tokens a row", ", ".join(f"{name} {value:g}" for name, value in lengths.items()) or None),
        ("truncated", f"{seen.get('truncated_rows', 0)} rows, {seen.get('truncated_tokens', 0)} tokens"),
        ("packing fill", _share(seen.get("packing_fill"))),
        ("double beginning of text", seen.get("double_bos")),
        ("missing end of text", seen.get("missing_eos")),
    ]
    return [(tag("dt", name), tag("dd", value)) for name, value in told if value is not None]


def _share(fraction: float | None) -> str | None:
    return None if fraction is None else f"{100 * fraction:.1f} %"


# --- the small print --------------------------------------------------------------------------------------------------


def facts(results: Results) -> Html:
    """What it was made of: model, data, result, and the fingerprints that name each artifact."""
    told = [(name, value) for name, value in _facts(results) if value not in (None, "", {})]
    listed = tag("dl", *(part for name, value in told for part in (tag("dt", name), tag("dd", value))), class_="facts")
    keys = [[tag("th", stage, scope="row"), tag("td", tag("code", key))] for stage, key in results.keys.items()]
    return _section("Small print", None, listed, _table("Fingerprints", ["stage", "artifact"], keys))


def _facts(results: Results) -> list[tuple[str, Any]]:
    scope, select = (results.stages.get(stage, {}) for stage in ("scope", "select"))
    rows = ", ".join(f"{name} {count:,}" for name, count in (scope.get("rows") or {}).items())
    parameters = select.get("parameters")
    return [
        ("model", select.get("model")),
        ("source", select.get("source")),
        ("parameters", f"{parameters:,}" if parameters else None),
        ("licence", select.get("licence")),
        ("note", results.model_note()),
        ("rows", rows),
        ("smallest difference that this test can show", _points(scope.get("minimum_detectable_difference"))),
        *_handed_over(results),
        *_environment(results),
    ]


def _handed_over(results: Results) -> list[tuple[str, Any]]:
    """What integrate made, where it stands below the project, and whether it still answers the same."""
    integrate, folder = results.stages.get("integrate"), results.folders.get("integrate")
    if not integrate or folder is None:
        return []
    place = folder / str(integrate.get("path", ""))
    where = place.relative_to(results.base) if place.is_relative_to(results.base) else place
    parity = (integrate.get("parity") or {}).get("max_logit_difference")
    return [
        (f"result ({integrate.get('form', '')})", f"{where}, {Bytes(integrate.get('bytes') or 0)}"),
        ("merged beside unmerged, largest logit difference", None if parity is None else f"{parity:.2g}"),
    ]


def _environment(results: Results) -> list[tuple[str, Any]]:
    """Versions and machine of the latest run."""
    told = [event for event in results.events if event["kind"] == "environment"]
    return [
        (str(name), str(value)) for name, value in (told[-1] if told else {}).items() if name not in ("time", "kind")
    ]


def _points(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} points"


def _footer() -> Html:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return tag("footer", f"Made by Genwright {__version__} on {made}. This page loads nothing from anywhere.")


def _table(
    caption: str, head: Sequence[str | Html], rows: Sequence[Sequence[Html]], classes: Sequence[str | None] = ()
) -> Html:
    named = list(classes) or [None] * len(rows)
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag(
                "thead",
                tag(
                    "tr", *(tag("th", name, scope="col", class_="number" if i else None) for i, name in enumerate(head))
                ),
            ),
            tag("tbody", *(tag("tr", *cells, class_=class_) for cells, class_ in zip(rows, named))),
        ),
        class_="scroll",
    )
