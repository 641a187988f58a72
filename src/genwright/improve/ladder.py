"""The rule of climbing, pure: cheapest rung first, stop at the first that clears the target, never exceed the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

COSTS = ("hours", "usd", "kwh")


@dataclass(frozen=True)
class Rung:
    """A name and the most it is planned to cost: {"hours": ..., "usd": ..., "kwh": ...}; what is unknown is absent."""

    name: str
    cost: Mapping[str, float] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    """What it has cost already, where an earlier process was killed in the middle of it."""


@dataclass(frozen=True)
class Tried:
    """A rung that was tried: its score, the value that must clear the target, and what it cost.

    `bound` is the score itself, or the end of its interval that is nearest to failing. A rung that was stopped because
    the budget was spent has no score, and says so in `stopped`.
    """

    score: float | None
    bound: float | None
    cost: Mapping[str, float]
    stopped: str = ""


@dataclass(frozen=True)
class Attempt:
    """What came of a rung: its score, or why it was skipped."""

    name: str
    score: float | None
    skipped: str = ""


@dataclass(frozen=True)
class Climb:
    """All attempts in order, the rung that is best or first cleared the target, and why climbing ended."""

    tried: tuple[Attempt, ...]
    chosen: str
    met: bool | None
    why: str


def climb(
    rungs: Sequence[Rung], attempt: Callable[[str, Mapping[str, float]], Tried], *, target: float | None,
    higher_is_better: bool = True, budget: Mapping[str, float] | None = None,
) -> Climb:  # fmt: skip
    """Try rungs in order. `attempt(name, left)` gets what is left of each budget and must itself reuse finished work.

    A rung whose highest planned cost exceeds what is left of any budget is skipped, and said; an unknown cost under a
    budget is skipped too, for it could exceed it. Without a target every rung is climbed and the best is taken.
    """
    left = {name: amount - sum(rung.spent.get(name, 0.0) for rung in rungs) for name, amount in (budget or {}).items()}
    tried: list[Attempt] = []
    for rung in rungs:
        reason = _unaffordable(rung, left)
        if reason:
            tried.append(Attempt(rung.name, None, reason))
            continue
        own = {name: amount + rung.spent.get(name, 0.0) for name, amount in left.items()}
        done = attempt(rung.name, own)
        left = {name: amount - done.cost.get(name, 0.0) for name, amount in own.items()}
        tried.append(Attempt(rung.name, done.score, done.stopped))
        if target is not None and done.bound is not None and _meets(done.bound, target, higher_is_better):
            return Climb(tuple(tried), rung.name, True, f"{rung.name} is the first rung that meets the target")
    return _ended(tried, target, higher_is_better)


def _ended(tried: list[Attempt], target: float | None, higher_is_better: bool) -> Climb:
    scores = {attempt.name: attempt.score for attempt in tried if attempt.score is not None}
    if not scores:
        why = "no rung could be afforded: " + "; ".join(attempt.skipped for attempt in tried)
        return Climb(tuple(tried), "", False, why)
    best = max(scores, key=lambda name: scores[name] if higher_is_better else -scores[name])
    if target is None:
        return Climb(tuple(tried), best, None, _with_skipped(f"no target was given; {best} scored best", tried))
    if _meets(scores[best], target, higher_is_better):
        why = f"{best} scores {scores[best]:.3g}, but no rung's interval clears the target of {target:g}"
    else:
        why = f"no rung meets the target of {target:g}; {best} comes nearest"
    return Climb(tuple(tried), best, False, _with_skipped(why, tried))


def _with_skipped(why: str, tried: list[Attempt]) -> str:
    """A ladder that ended short says which rungs it never tried."""
    return "; ".join([why, *(f"skipped {attempt.skipped}" for attempt in tried if attempt.skipped)])


def _meets(score: float, target: float, higher_is_better: bool) -> bool:
    return score >= target if higher_is_better else score <= target


def _unaffordable(rung: Rung, left: Mapping[str, float]) -> str:
    for name, amount in left.items():
        if name not in rung.cost:
            return f"{rung.name}: its cost in {name} is unknown, and the budget has {amount:.3g} left"
        needed = max(0.0, rung.cost[name] - rung.spent.get(name, 0.0))
        if needed > amount:
            return f"{rung.name}: needs up to {needed:.3g} {name}, and the budget has {amount:.3g} left"
    return ""
