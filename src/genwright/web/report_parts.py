"""Pieces that several sections of the report share: a section, a table, an interval and points in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genwright.base.units import Seconds
from genwright.web.html import Html, tag
from genwright.web.summaries import Results


def section(title: str, lead: Any, *children: Any) -> Html:
    """A heading, a sentence under it, and what follows."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children)


def span_of(*values: float) -> tuple[float, float]:
    """What a scale of scores reaches over: 0 to 100, or further where a value is larger."""
    return (0.0, 100.0 if max(values) <= 100 else max(values) * 1.05)


def interval_words(score: dict[str, Any]) -> str:
    """A score's interval, and of how many rows."""
    rows = f", {score['n']} test rows" if score.get("n") else ""
    return f"95 % interval {score.get('low', score['value']):.1f} to {score.get('high', score['value']):.1f}{rows}"


def seconds_words(seconds: float | None) -> str:
    """A duration, or a dash."""
    return "–" if seconds is None else str(Seconds(seconds))


def points(value: float | None) -> str | None:
    """A score in points; None stays None."""
    return None if value is None else f"{value:.1f} points"


def as_table(
    caption: str, head: Sequence[str | Html], rows: Sequence[Sequence[Html]], classes: Sequence[str | None] = ()
) -> Html:
    """A table with a caption that screen readers tell."""
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


def metric_of(results: Results) -> str:
    """The metric that the project is judged by."""
    stages = results.stages
    return str(
        next((stages[s]["metric"] for s in ("evaluate", "adapt", "scope") if stages.get(s, {}).get("metric")), "")
    )
