"""The regression gate: what is measured now against a recorded baseline, and what fell by more than it may. No torch here.

A snapshot is JSON: {"quality": {suite: {"scores", "lower_is_better"}}, "seconds_per_token", "bytes", "safety": {attack: percent},
"handoffs": {name: {"passed", "told"}}}. What the baseline has and the snapshot lacks was not measured, and fails: a gate that
measures less passes more.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genwright.base.errors import BadRequest
from genwright.evaluate.statistics import paired

Snapshot = Mapping[str, Any]


@dataclass(frozen=True)
class Tolerances:
    """How far each may fall."""

    quality: float = 1.0
    """Points of a suite's score."""
    latency: float = 50.0
    """Percent more seconds a token; a shared machine moves by tens of percent."""
    size: float = 5.0
    """Percent more bytes."""
    safety: float = 2.0
    """Points more of the goals that an attack reaches, or of harmless questions refused."""

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise BadRequest("A tolerance is below 0.", wanted="how far it may fall: 0 or more")


@dataclass(frozen=True)
class Finding:
    """One comparison."""

    what: str
    before: float | None
    after: float | None
    tolerance: float
    unit: str
    failed: bool
    told: str = ""


def compare(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> list[Finding]:
    """Every comparison, those that failed first. Errors: BadRequest where rows do not pair up."""
    found = [
        *_quality(before["quality"], after["quality"], tolerances.quality),
        *_ratio("seconds a token", before, after, "seconds_per_token", tolerances.latency),
        *_ratio("bytes", before, after, "bytes", tolerances.size),
        *_safety(before["safety"], after["safety"], tolerances.safety),
        *_handoffs(before["handoffs"], after["handoffs"]),
    ]
    return sorted(found, key=lambda finding: not finding.failed)


def _quality(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float) -> Iterator[Finding]:
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            yield _missing(name, statistics.fmean(old["scores"]), tolerance, "points")
            continue
        if old["rows"] != new["rows"]:
            raise BadRequest(
                f"{name} is not the suite that was recorded: its rows are others.",
                do="`genwright gate --record` takes a new baseline",
            )
        sign = -1 if old["lower_is_better"] else 1
        seen = paired(old["scores"], new["scores"], higher_is_better=not old["lower_is_better"])
        sure = (
            "the interval says so"
            if (seen.low > 0) == (seen.high > 0) and seen.low * seen.high > 0
            else "within chance"
        )
        values = statistics.fmean(old["scores"]), statistics.fmean(new["scores"])
        yield Finding(
            name, *values, tolerance, "points", sign * seen.difference < -tolerance, f"{seen.difference:+.2f}, {sure}"
        )


def _ratio(what: str, before: Snapshot, after: Snapshot, key: str, tolerance: float) -> Iterator[Finding]:
    old, new = before.get(key), after.get(key)
    if not old:
        return
    if new is None:
        yield _missing(what, old, tolerance, "%")
        return
    more = 100 * (new / old - 1)
    yield Finding(what, old, new, tolerance, "%", more > tolerance, f"{more:+.1f} %")


def _safety(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> Iterator[Finding]:
    for name, old in before.items():
        if name not in after:
            yield _missing(name, old, tolerance, "points")
            continue
        more = after[name] - old
        yield Finding(name, old, after[name], tolerance, "points", more > tolerance, f"{more:+.1f}")


def _handoffs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    """A hand-off that does not pass fails, recorded or not; one that was recorded and is gone fails too."""
    for name in before:
        if name not in after:
            yield _missing(name, None, 0.0, "")
    for name, one in after.items():
        yield Finding(name, None, None, 0.0, "", not one["passed"], one["told"])


def _missing(what: str, before: float | None, tolerance: float, unit: str) -> Finding:
    return Finding(what, before, None, tolerance, unit, True, "was not measured")
