"""The report's numbers: test scores, paired differences, losses, and what was planned beside what was measured."""

from __future__ import annotations

from typing import Any

from genwright.web.html import Html, tag
from genwright.web.plots import curves, difference_track, interval_track, ratio_track
from genwright.web.report_parts import as_table, metric_of, section, span_of
from genwright.web.summaries import Comparison, Results, compare


def scores(results: Results) -> Html | None:
    """A dot and its interval for every rung, then every metric in a table."""
    evaluate = results.stages.get("evaluate", {})
    by_rung: dict[str, dict[str, Any]] = evaluate.get("scores", {})
    metric = metric_of(results)
    rows = [(rung, by_rung[rung][metric]) for rung in by_rung if metric in by_rung[rung]]
    if not rows:
        return None
    span = span_of(*(score.get("high", score["value"]) for _, score in rows))
    chosen, target = results.stages.get("adapt", {}).get("chosen"), evaluate.get("target")
    dots = [_dot_row(rung, score, span, target, rung == chosen) for rung, score in rows]
    lead = f"{metric} on the test rows, which no rung was chosen or trained on. Dot: score. Line: 95 % interval."
    lead += f" Dashed: the target, {target:g}." if target is not None else ""
    return section(
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
    return as_table("Every metric", ["rung", *names], rows, classes)


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
        "Better is said only where the line does not touch zero and p, corrected for the number of comparisons, is below 0.05."
    )
    return section(
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


def loss(results: Results) -> Html | None:
    """Training and validation loss over steps for every rung that was trained."""
    drawn = [_loss_of(rung, *lines) for rung, lines in loss_lines(results).items()]
    if not drawn:
        return None
    return section("Loss", "Nats per learned token. Faint: each step. Solid: its running mean.", *drawn)


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
    """What the plan foretold beside what was measured, for every rung, and for forgetting, where there is either."""
    forgetting = {"name": "unlearn", **results.stages.get("unlearn", {})}
    told = [one for one in (*results.rungs(), forgetting) if one.get("planned") or one.get("measured")]
    tables = [_planned_table(one) for one in told]
    if not any(tables):
        return None
    lead = (
        "The plan was made before anything was spent. The band is its range, the dot is the measurement, "
        "the middle line is a perfect plan; the ends are half and double."
    )
    return section("Planned beside measured", lead, *tables)


def _planned_table(rung: dict[str, Any]) -> Html | None:
    rows = compare(rung.get("planned"), rung.get("measured"))
    if not rows:
        return None
    head = ["", "planned", "measured", "ratio", tag("span", tag("i", "½"), tag("i", "1"), tag("i", "2"), class_="ends")]
    return as_table(rung["name"], head, [_planned_cells(row) for row in rows])


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
