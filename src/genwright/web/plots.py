"""Plots as inline SVG. Positions are percentages, so that a plot narrows with its page while its words keep their size.

Every plot says in words what it shows (`aria-label`), and no meaning is carried by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from genwright.web.html import Html, join, tag

Points = Sequence[tuple[float, float]]


def interval_track(
    value: float, low: float, high: float, *, span: tuple[float, float], mark: float | None = None, strong: bool = False
) -> Html:
    """A dot with its interval on a line from span[0] to span[1], and a dashed mark (the target)."""
    at = _percent(span)
    return tag(
        "svg",
        tag("line", x1="0%", x2="100%", y1="50%", y2="50%", class_="rail"),
        tag("line", x1=at(mark), x2=at(mark), y1="0", y2="100%", class_="target") if mark is not None else None,
        tag("line", x1=at(low), x2=at(high), y1="50%", y2="50%", class_="whisker"),
        *(tag("line", x1=at(end), x2=at(end), y1="32%", y2="68%", class_="whisker cap") for end in (low, high)),
        tag("circle", cx=at(value), cy="50%", r="6" if strong else "5"),
        class_="track strong" if strong else "track",
        role="img",
        aria_label=f"{value:.1f}, 95 % interval {low:.1f} to {high:.1f}",
    )


def ratio_track(ratio: float, low: float | None, high: float | None, *, within: bool | None) -> Html:
    """Measured over planned on a logarithmic line from half to double: band = foretold range, dot = measured."""
    at = _percent((-1.0, 1.0))

    def place(value: float) -> str:
        return at(math.log2(value) if value > 0 else -1.0)

    band = None
    if low is not None and high is not None and high > 0:
        left, right = float(place(low)[:-1]), float(place(high)[:-1])
        band = tag(
            "rect",
            x=f"{left:.2f}%",
            width=f"{max(right - left, 0.8):.2f}%",
            y="22%",
            height="56%",
            rx="3",
            class_="band",
        )
    return tag(
        "svg",
        tag("line", x1="0%", x2="100%", y1="50%", y2="50%", class_="rail"),
        band,
        tag("line", x1="50%", x2="50%", y1="12%", y2="88%", class_="one"),
        tag("circle", cx=place(ratio), cy="50%", r="4.5", class_="outside" if within is False else None),
        class_="track ratio",
        role="img",
        aria_label=f"measured is {ratio:.2f} times planned",
    )


def difference_track(value: float, low: float, high: float, *, reach: float, better: bool) -> Html:
    """A difference with its interval on a line from -reach to +reach, with zero marked."""
    at = _percent((-reach, reach))
    return tag(
        "svg",
        tag("line", x1="0%", x2="100%", y1="50%", y2="50%", class_="rail"),
        tag("line", x1="50%", x2="50%", y1="8%", y2="92%", class_="one"),
        tag("line", x1=at(low), x2=at(high), y1="50%", y2="50%", class_="whisker"),
        tag("circle", cx=at(value), cy="50%", r="5", class_=None if better else "outside"),
        class_="track strong",
        role="img",
        aria_label=f"difference {value:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}",
    )


def curves(lines: Sequence[tuple[str, Points]], *, x_title: str, y_title: str, label: str) -> Html:
    """Lines over a common x; y is linear and starts where the data do. A long first line is faint below its mean."""
    everything = [point for _, points in lines for point in points if math.isfinite(point[1])]
    x_ticks = ticks(0, max(x for x, _ in everything), 6)
    y_ticks = ticks(min(y for _, y in everything), max(y for _, y in everything), 5)
    frame = (x_ticks[0], max(x_ticks[-1], max(x for x, _ in everything)), y_ticks[0], y_ticks[-1])
    drawn = [_curve(points, frame, f"line line-{index}") for index, (_, points) in enumerate(lines) if points]
    if len(lines[0][1]) > 30:
        drawn[0] = join(
            [_curve(lines[0][1], frame, "line faint"), _curve(running_mean(lines[0][1]), frame, "line line-0")]
        )
    plot = tag(
        "svg",
        *(tag("line", x1="0", x2="100", y1=_y(tick, frame), y2=_y(tick, frame), class_="grid") for tick in y_ticks),
        *drawn,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    return tag(
        "div",
        tag("span", y_title, class_="y-title"),
        *(tag("span", _short(tick), class_="y-tick", style=f"top:{_y(tick, frame)}%") for tick in y_ticks),
        plot,
        *(_x_tick(tick, frame) for tick in x_ticks if tick <= frame[1]),
        tag("span", x_title, class_="x-title"),
        class_="curves",
    )


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that enclose [low, high], about `wanted` of them.

    >>> ticks(0.3, 2.2, 5)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    width = (high - low) / max(wanted - 1, 1) or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(width))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= width * 0.85)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def running_mean(points: Points) -> Points:
    """The mean of a window of a twentieth of the points around each, to show a trend through noise."""
    reach = max(1, len(points) // 40)
    return [
        (x, sum(y for _, y in near) / len(near))
        for index, (x, _) in enumerate(points)
        if (near := points[max(0, index - reach) : index + reach + 1])
    ]


def _curve(points: Points, frame: tuple[float, float, float, float], class_: str) -> Html:
    width = frame[1] - frame[0] or 1.0
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    path = " ".join(f"{100 * (x - frame[0]) / width:.2f},{_y(y, frame)}" for x, y in finite)
    return tag("polyline", points=path, class_=class_, vector_effect="non-scaling-stroke")


def _y(value: float, frame: tuple[float, float, float, float]) -> str:
    return f"{100 * (frame[3] - value) / ((frame[3] - frame[2]) or 1.0):.2f}"


def _x_tick(tick: float, frame: tuple[float, float, float, float]) -> Html:
    left = 100 * (tick - frame[0]) / ((frame[1] - frame[0]) or 1.0)
    return tag("span", _short(tick), class_="x-tick", style=f"--at:{left:.2f}")


def _percent(span: tuple[float, float]) -> Callable[[float], str]:
    width = (span[1] - span[0]) or 1.0
    return lambda value: f"{100 * (min(max(value, span[0]), span[1]) - span[0]) / width:.2f}%"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:g}"


Step = tuple[str, float, float, float, float]
"""A rung: name, cost of everything up to and with it, score, and the interval's low and high."""


def climb_plot(steps: Sequence[Step], *, target: float | None, metric: str, unit: str) -> Html:
    """Score over cost so far: a dot with its interval for each rung, and a dashed target. It stands alone as an SVG file too."""
    width, height, left, bottom, top = 720, 300, 56, 44, 18
    most = max(cost for _, cost, *_ in steps) or 1.0
    bounds = [value for step in steps for value in step[3:]] + ([] if target is None else [target])
    y_ticks = ticks(min(0.0, *bounds), max(bounds), 5)
    x_at = lambda cost: left + (width - left - 90) * cost / most
    y_at = lambda score: top + (height - bottom - top) * (y_ticks[-1] - score) / (y_ticks[-1] - y_ticks[0])
    number = lambda value: f"{value:.1f}"
    grid = [
        part
        for tick in y_ticks
        for part in (
            _line(left, y_at(tick), width, y_at(tick), stroke_opacity="0.15"),
            tag("text", _short(tick), x=left - 8, y=number(y_at(tick) + 4), text_anchor="end"),
        )
    ]
    path = " ".join(f"{x_at(cost):.1f},{y_at(score):.1f}" for _, cost, score, *_ in steps)
    dots = [
        part
        for name, cost, score, low, high in steps
        for part in (
            _line(x_at(cost), y_at(low), x_at(cost), y_at(high), stroke_width="2"),
            tag("circle", cx=number(x_at(cost)), cy=number(y_at(score)), r="4"),
            tag("text", f"{name} {score:.1f}", x=number(x_at(cost) + 8), y=number(y_at(score) - 7)),
            tag("text", _short(round(cost, 1)), x=number(x_at(cost)), y=height - bottom + 16, text_anchor="middle"),
        )
    ]
    words = "; ".join(
        f"{name}: {score:.1f} ({low:.1f} to {high:.1f}) after {cost:.0f} {unit}"
        for name, cost, score, low, high in steps
    )
    return tag(
        "svg", *grid,
        _line(left, y_at(target), width, y_at(target), stroke_dasharray="5 4") if target is not None else None,
        tag("polyline", points=path, fill="none", stroke="currentColor", stroke_opacity="0.4"),
        *dots,
        tag("text", f"{metric} on validation rows" + ("" if target is None else f"; dashed: target {target:g}"), x="4", y="12"),
        tag("text", f"{unit} spent so far", x=width, y=height - 6, text_anchor="end"),
        viewBox=f"0 0 {width} {height}", fill="currentColor", font_size="12",
        font_family="sans-serif", role="img", aria_label=words,
    )  # fmt: skip


def _line(x1: float, y1: float, x2: float, y2: float, **more: str) -> Html:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", stroke="currentColor", **more)
