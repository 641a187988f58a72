"""Intervals and tests for scores between 0 and 100. Rows of a group are resampled together: they are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genwright.base.errors import BadRequest

Scores = Sequence[float]
Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval over `n` rows."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """after - before on the same rows. `better` only where the interval lies on the good side of 0 and p < 0.05."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    n: int
    better: bool


def bootstrap(
    scores: Scores, *, groups: Sequence[str] | None = None, weights: Scores | None = None, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the mean, resampling groups whole (Efron 1979); Wilson's interval for 0/100 scores.

    With weights the mean is sum(weight * score) / sum(weight), in every draw: a ratio of sums, as of bits over bytes. A row of
    weight 0, such as one that nobody could judge, is no row of the sample.

    Wilson (1927) is used where every row is a group of its own: below a few hundred rows the bootstrap of a share is
    too narrow, and 10 of 10 is not "100 to 100". Errors: BadRequest for no scores, or one that is no number.
    """
    values, groups, weights = _counting(_checked(scores), groups, weights)
    sums, sizes = _by_group(values, groups, weights)
    mean = float(sums.sum() / sizes.sum())
    if weights is None and len(sums) == len(values) and set(values) <= {0.0, 100.0}:
        low, high = wilson(int(values.sum() / 100), len(values))
        return Interval(mean, 100 * low, 100 * high, len(values))
    draws = _resampled_means(sums, sizes, seed)
    low, high = (float(bound) for bound in np.percentile(draws, [2.5, 97.5]))
    return Interval(mean, min(low, mean), max(high, mean), len(values))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """(low, high) of a share, as fractions. 10 of 10 gives 0.722 to 1."""
    centre, spread = successes + Z95**2 / 2, Z95 * math.sqrt(successes * (n - successes) / n + Z95**2 / 4)
    return max(0.0, (centre - spread) / (n + Z95**2)), min(1.0, (centre + spread) / (n + Z95**2))


def paired(
    before: Scores, after: Scores, *, groups: Sequence[str] | None = None, weights: Scores | None = None, seed: int = 0,
    higher_is_better: bool = True,
) -> Paired:  # fmt: skip
    """Compare two solutions on the same rows: exact McNemar for 0/100 scores of independent rows, else sign flips by group.

    McNemar 1947, two-sided binomial over the rows that changed: 1 against 8 gives p = 0.0390625. Sign flips: the share
    of 10,000 random signs of the groups' summed differences whose total is at least as far from 0.
    Errors: BadRequest when the lists differ in length.
    """
    if len(before) != len(after):
        raise BadRequest(
            "The two lists are not of the same rows.", wanted=f"{len(before)} scores", found=f"{len(after)}"
        )
    one, two = _checked(before), _checked(after)
    differences, groups, weights = _counting(two - one, groups, weights)
    sums, sizes = _by_group(differences, groups, weights)
    low, high = (float(bound) for bound in np.percentile(_resampled_means(sums, sizes, seed), [2.5, 97.5]))
    if weights is None and set(one) | set(two) <= {0.0, 100.0} and len(sums) == len(one):
        p_value, test = mcnemar(int((differences < 0).sum()), int((differences > 0).sum())), "mcnemar-exact"
    else:
        p_value, test = _sign_flips(sums, seed), "sign-flip"
    mean = float(sums.sum() / sizes.sum())
    clear = (low > 0 if higher_is_better else high < 0) and p_value < 0.05
    return Paired(mean, min(low, mean), max(high, mean), p_value, test, len(differences), clear)


def mcnemar(worse: int, better: int) -> float:
    """Two-sided exact p: the chance of so uneven a split of the changed rows, if either way were equally likely."""
    changed, fewer = worse + better, min(worse, better)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed
    return min(1.0, 2 * tail)


def _sign_flips(sums: np.ndarray, seed: int, draws: int = 10_000) -> float:
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(sums)))
    further = int((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum())
    return (further + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several comparisons (Holm 1979): the k-th smallest of m times m - k + 1, never decreasing."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def corrected(comparisons: Sequence[Paired]) -> list[Paired]:
    """Comparisons that are told together: Holm's p-values, and `better` only where those are below 0.05 too.

    By hand: of three with p = 0.03 each none is better, for each has 0.09.
    """
    if len(comparisons) < 2:
        return list(comparisons)
    return [
        replace(one, p_value=p_value, test=f"{one.test}, Holm", better=one.better and p_value < 0.05)
        for one, p_value in zip(comparisons, holm([one.p_value for one in comparisons]))
    ]


def minimum_detectable_difference(n: int, spread: float = 50.0) -> float:
    """The smallest true difference of means that n rows show 4 times in 5 (alpha 0.05, two-sided): 2.8 * spread / sqrt(n).

    `spread` is the standard deviation of one row's difference; 50 is that of a 0/100 score where a quarter changes.
    Errors: BadRequest without rows.
    """
    if n < 1:
        raise BadRequest("A test needs rows.", wanted="n >= 1", found=str(n))
    return (Z95 + 0.8416212335729143) * spread / math.sqrt(n)


def _checked(scores: Scores) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise BadRequest(
            "These are no scores.", wanted="at least one, all of them numbers", found=f"{len(values)} values"
        )
    return values


def _counting(
    values: np.ndarray, groups: Sequence[str] | None, weights: Scores | None
) -> tuple[np.ndarray, Sequence[str] | None, Scores | None]:
    """The rows whose weight is not 0."""
    if weights is None:
        return values, groups, None
    each = np.asarray(weights, dtype=float)
    counts = each > 0
    if not counts.any():
        raise BadRequest("No row of these counts.", wanted="a weight above 0")
    return (
        values[counts],
        None if groups is None else [name for name, kept in zip(groups, counts) if kept],
        each[counts].tolist(),
    )


def _by_group(
    values: np.ndarray, groups: Sequence[str] | None, weights: Scores | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and size of each group, in order of first appearance."""
    names = list(groups) if groups is not None else [str(index) for index in range(len(values))]
    if len(names) != len(values):
        raise BadRequest("Groups and scores do not pair up.", wanted=f"{len(values)} groups", found=str(len(names)))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    which = np.array([numbers[name] for name in names])
    each = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    return np.bincount(which, weights=values * each), np.bincount(which, weights=each)


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    return np.asarray(sums[drawn].sum(1) / sizes[drawn].sum(1))
