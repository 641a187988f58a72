"""Time against money of many recipes as a standalone SVG: those that no other beats are named and joined by a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, EDGE = 720, 420, 64
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd}.one{fill:#9aa5b1}.over{fill:none;stroke:#9aa5b1}"
    ".best{fill:#0b6e4f}.front{fill:none;stroke:#0b6e4f;stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#ccc}.grid{stroke:#444}}"
)


def pareto(recipes: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]]) -> str:
    """Hours to the right, money upwards, both logarithmic; a ring is over the budget. What has no price is left out."""
    priced = [one for one in recipes if one["usd"]]
    if not priced:
        return _svg("No recipe has a price.", [f'<text x="{EDGE}" y="{HEIGHT / 2}">No recipe has a price.</text>'])
    x = _axis([one["hours"] for one in priced], EDGE, WIDTH - EDGE)
    y = _axis([one["usd"] for one in priced], HEIGHT - EDGE, EDGE / 2)
    at = lambda one: (x(one["hours"]), y(one["usd"]))
    drawn = [*_grid(priced, x, y)]
    for one in priced:
        left, up = at(one)
        kind = "one" if one["within_budget"] else "over"
        drawn.append(_dot(kind, left, up, 4, one))
    path = " ".join(f"{left:.1f},{up:.1f}" for left, up in map(at, front))
    drawn.append(f'<polyline class="front" points="{path}"/>')
    for one in front:
        left, up = at(one)
        anchor = "end" if left > WIDTH / 2 else "start"
        drawn.append(_dot("best", left, up, 5, one))
        name = escape(f"{one['count']} x {one['device']}, {one['strategy']}")
        drawn.append(f'<text x="{left:.1f}" y="{up - 9:.1f}" text-anchor="{anchor}">{name}</text>')
    words = f"Time against money of {len(priced)} recipes; the best: " + "; ".join(map(_said, front))
    return _svg(words, drawn)


def _dot(kind: str, left: float, up: float, radius: int, one: dict[str, Any]) -> str:
    return f'<circle class="{kind}" cx="{left:.1f}" cy="{up:.1f}" r="{radius}"><title>{_said(one)}</title></circle>'


def _said(one: dict[str, Any]) -> str:
    return escape(f"{one['count']} x {one['device']}, {one['recipe']}: {one['hours']:.3g} h, {one['usd']:.3g} USD")


def _axis(values: Sequence[float], first: float, last: float) -> Any:
    """Value -> place, by logarithms, with a tenth to spare on each side."""
    low, high = math.log(min(values)), math.log(max(values))
    spare = max(0.1, (high - low) * 0.1)
    return lambda value: first + (last - first) * (math.log(value) - low + spare) / (high - low + 2 * spare)


def _grid(priced: Sequence[dict[str, Any]], x: Any, y: Any) -> list[str]:
    drawn = []
    for value in _marks([one["hours"] for one in priced]):
        drawn.append(
            f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{EDGE / 2}" y2="{HEIGHT - EDGE}"/>'
        )
        drawn.append(f'<text x="{x(value):.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{value:g}</text>')
    for value in _marks([one["usd"] for one in priced]):
        drawn.append(f'<line class="grid" x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        drawn.append(f'<text x="{EDGE - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    drawn.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">hours</text>')
    return [*drawn, f'<text x="8" y="{EDGE / 2 - 10}">US dollars</text>']


def _marks(values: Sequence[float]) -> list[float]:
    """1, 2, 5 times powers of ten within the values.

    >>> _marks([0.9, 12])
    [1.0, 2.0, 5.0, 10.0]
    """
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        mark
        for power in powers
        for step in (1, 2, 5)
        if low * 0.95 <= (mark := float(f"{step}e{power}")) <= high * 1.05
    ]


def _svg(words: str, drawn: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}"><style>{STYLE}</style>'
    return "\n".join([head, *drawn, "</svg>", ""])
