"""Successive halving: try many a little, keep the best part, try those longer (Jamieson and Talwalkar 2016, arXiv 1502.07943).

With n candidates, a full effort of R and a factor f there are rounds of effort R/f^k, R/f^(k-1), ..., R/f; the best 1/f of
each round go on, and the last one standing gets the full effort from its rung. All rounds together cost about k * R.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class Round:
    """How much each candidate of a round gets, and how many candidates there are."""

    effort: int
    candidates: int


def rounds(candidates: int, full: int, *, factor: int, least: int = 1) -> list[Round]:
    """The rounds before the winner's own; 9 candidates, factor 3, full 90: 9 at 10, 3 at 30. One candidate needs none."""
    number = math.ceil(math.log(candidates, factor) - 1e-9) if candidates > 1 else 0
    planned, left = [], candidates
    for step in range(number, 0, -1):
        planned.append(Round(min(full, max(least, full // factor**step)), left))
        left = max(1, math.ceil(left / factor))
    return planned


def work(planned: Sequence[Round]) -> int:
    """Effort of all rounds together."""
    return sum(one.effort * one.candidates for one in planned)


def halve(
    candidates: Sequence[Candidate], full: int, measure: Callable[[Candidate, int], float], *, factor: int,
    least: int = 1, higher_is_better: bool = True,
) -> tuple[Candidate, list[dict[str, Any]]]:  # fmt: skip
    """(the winner, every measurement). `measure(candidate, effort)` must reuse finished work; ties go to the earlier one."""
    standing, told = list(candidates), []
    for one in rounds(len(candidates), full, factor=factor, least=least):
        scores = [measure(candidate, one.effort) for candidate in standing]
        told += [
            {"candidate": str(candidate), "effort": one.effort, "score": score}
            for candidate, score in zip(standing, scores)
        ]
        order = sorted(range(len(standing)), key=lambda place: -scores[place] if higher_is_better else scores[place])
        standing = [standing[place] for place in order[: max(1, math.ceil(len(standing) / factor))]]
    return standing[0], told
