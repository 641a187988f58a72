"""What a plan says: each quantity with a low and a high, a breakdown by name, and why where it cannot say. No torch here.

All values are in base units: bytes, seconds, joules, US dollars, FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """A value and the interval it is expected in."""

    value: float
    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(self.value * factor, self.low * factor, self.high * factor)


def around(value: float, below: float, above: float) -> Range:
    """A range given as fractions below and above."""
    return Range(value, value * (1 - below), value * (1 + above))


QUANTITIES = (
    "train_peak_bytes", "evaluate_peak_bytes", "save_peak_bytes", "resume_peak_bytes", "merge_peak_bytes",
    "host_bytes", "disk_bytes", "flops_per_step", "step_seconds", "train_seconds", "evaluate_seconds", "seconds",
    "joules", "usd",
)  # fmt: skip
"""In the order a plan prints them. The five peaks are live tensors plus the process itself; `host_bytes` is their maximum."""


@dataclass(frozen=True)
class Estimate:
    """A plan of one rung. A quantity that is missing has its reason in `unknown`: nothing is guessed in silence."""

    quantities: dict[str, Range] = field(default_factory=dict)
    breakdown: dict[str, float] = field(default_factory=dict)
    """What the training peak is made of, in bytes."""
    unknown: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known beside the quantities: whether it fits, in which phase the peak is, what was counted."""
    compiled: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)
    """Kernels that "train" and "evaluate" leave in the process (`here.shapes.Compiled`); they are not told."""

    def to_json(self) -> dict[str, Any]:
        """{"train_peak_bytes": value, ..., "low": {...}, "high": {...}, "breakdown", "unknown", "notes"}."""
        values: dict[str, Any] = {
            name: self.quantities[name].value if name in self.quantities else None
            for name in dict.fromkeys((*QUANTITIES, *self.quantities))
        }
        for bound in ("low", "high"):
            values[bound] = {name: asdict(quantity)[bound] for name, quantity in self.quantities.items()}
        more = {"facts": self.facts} if self.facts else {}
        return values | {"breakdown": self.breakdown, "unknown": self.unknown, "notes": list(self.notes)} | more


def bill(seconds: Range, *, watts: float | None, usd_per_hour: float | None) -> tuple[dict[str, Range], dict[str, str]]:
    """Energy = watts * seconds and money = hours * price, where the project states them; else the reason they are unknown."""
    known, unknown = {}, {}
    if watts is None:
        unknown["joules"] = "this machine's draw is not stated: set hardware.watts"
    else:
        known["joules"] = seconds * watts
    if usd_per_hour is None:
        unknown["usd"] = "this machine's price is not stated: set hardware.usd_per_hour"
    else:
        known["usd"] = seconds * (usd_per_hour / 3600)
    return known, unknown
