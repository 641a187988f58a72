"""The rule of climbing, pure: cheapest rung first, stop at the first that meets the target, never exceed the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

COSTS = ("hours", "usd", "kwh")


@dataclass(frozen=True)
class Rung:
    """A name and what it is planned to cost: {"hours": ..., "usd": ..., "kwh": ...}; what is unknown is absent."""

    name: str
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """What came of a rung: its score, or why it was skipped."""

    name: str
    score: float | None
    skipped: str = ""


@dataclass(frozen=True)
class Climb:
    """All attempts in order, the rung that is best or first met the target, and why climbing ended."""

    tried: tuple[Attempt, ...]
    chosen: str
    met: bool | None
    why: str


def climb(
    rungs: Sequence[Rung], attempt: Callable[[str], tuple[float, Mapping[str, float]]], *, target: float | None,
    higher_is_better: bool = True, budget: Mapping[str, float] | None = None,
) -> Climb:  # fmt: skip
    """Try rungs in order. `attempt(name)` gives (score, what it really cost) and must itself reuse finished work.

    A rung whose planned cost exceeds what is left of any budget is skipped, and said; an unknown cost under a budget is
    skipped too, for it could exceed it. Without a target every rung is climbed and the best is taken.
    """
    left = dict(budget or {})
    tried: list[Attempt] = []
    for rung in rungs:
        reason = _unaffordable(rung, left)
        if reason:
            tried.append(Attempt(rung.name, None, reason))
            continue
        score, cost = attempt(rung.name)
        left = {name: amount - cost.get(name, 0.0) for name, amount in left.items()}
        tried.append(Attempt(rung.name, score))
        if target is not None and _meets(score, target, higher_is_better):
            return Climb(tuple(tried), rung.name, True, f"{rung.name} is the first rung that meets the target")
    return _ended(tried, target, higher_is_better)


def _ended(tried: list[Attempt], target: float | None, higher_is_better: bool) -> Climb:
    scored = [attempt for attempt in tried if attempt.score is not None]
    if not scored:
        return Climb(
            tuple(tried), "", False, "no rung could be afforded: " + "; ".join(attempt.skipped for attempt in tried)
        )
    best = max(scored, key=lambda attempt: (attempt.score if higher_is_better else -attempt.score) or 0.0)  # type: ignore[operator]
    if target is None:
        return Climb(tuple(tried), best.name, None, f"no target was given; {best.name} scored best")
    return Climb(tuple(tried), best.name, False, f"no rung meets the target of {target:g}; {best.name} comes nearest")


def _meets(score: float, target: float, higher_is_better: bool) -> bool:
    return score >= target if higher_is_better else score <= target


def _unaffordable(rung: Rung, left: Mapping[str, float]) -> str:
    for name, amount in left.items():
        if name not in rung.cost:
            return f"{rung.name}: its cost in {name} is unknown, and the budget has {amount:.3g} left"
        if rung.cost[name] > amount:
            return f"{rung.name}: needs {rung.cost[name]:.3g} {name}, and the budget has {amount:.3g} left"
    return ""
