"""L-BFGS for a few numbers (Nocedal 1980), on numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

KEPT = 10


def lbfgs(objective: Callable[[Any], tuple[float, Any]], start: Any, *, steps: int = 500) -> Any:
    """Where `objective` (value, gradient) is least, from `start`: two loops, and halving until Armijo's condition holds."""
    import numpy as np

    at, (value, gradient) = start, objective(start)
    pairs: list[tuple[Any, Any]] = []
    for _ in range(steps):
        direction = -_inverse(pairs, gradient)
        slope = float(direction @ gradient)
        if slope >= 0:
            direction, slope, pairs = -gradient, -float(gradient @ gradient), []
        length = 1.0 if pairs else min(1.0, 1.0 / (float(np.abs(gradient).sum()) + 1e-300))
        for _ in range(40):
            there = at + length * direction
            new_value, new_gradient = objective(there)
            if new_value <= value + 1e-4 * length * slope:
                break
            length /= 2
        else:
            return at
        moved, turned = there - at, new_gradient - gradient
        if float(moved @ turned) > 1e-12 * float(turned @ turned):
            pairs = [*pairs[1 - KEPT :], (moved, turned)]
        done = value - new_value <= 1e-13 * max(1.0, abs(value))
        at, value, gradient = there, new_value, new_gradient
        if done:
            return at
    return at


def _inverse(pairs: list[tuple[Any, Any]], gradient: Any) -> Any:
    """The inverse Hessian that the pairs imply, times the gradient."""
    found, kept = gradient.copy(), []
    for moved, turned in reversed(pairs):
        share = float(moved @ found) / float(moved @ turned)
        found = found - share * turned
        kept.append(share)
    if pairs:
        moved, turned = pairs[-1]
        found = found * (float(moved @ turned) / float(turned @ turned))
    for (moved, turned), share in zip(pairs, reversed(kept)):
        found = found + moved * (share - float(turned @ found) / float(moved @ turned))
    return found
