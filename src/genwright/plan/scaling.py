"""Scaling laws: how loss falls with size and data, what a budget buys best, and how small is enough. numpy inside functions; no torch.

L(N, D) = E + A / N^alpha + B / D^beta        Hoffmann 2022 (arXiv 2203.15556), approach 3
C = 6 N D                                     Kaplan 2020 (arXiv 2001.08361)
N = G (C / 6)^(beta / (alpha + beta)),  G = (alpha A / beta B)^(1 / (alpha + beta)),  D = C / 6 N
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genwright.base.errors import BadRequest, DataError

PETAFLOPS_DAY = 8.64e19
"""FLOP."""
TOKENS_PER_PARAMETER = 20.0
"""The rule of thumb."""
HUBER_DELTA = 1e-3
UTILISATION = 0.4
"""Share of a device's peak that a training reaches, where a budget is given in device-hours or money: 0.3 to 0.5 in the range."""
DRAWS = 400
BUDGETS = (1e12, 1e30)
"""FLOPs of a training that can be meant: less is a few thousand weights, more is thousands of times what anybody spent."""
FITTED = ((70e6, 16e9), (5e9, 500e9))
"""Parameters and tokens of the runs that both laws were fitted on (arXiv 2203.15556, abstract)."""
LEAST_FALL = 1e-3
"""Share of the loss by which runs must differ along an axis for a law to be read off them."""


@dataclass(frozen=True)
class Law:
    """A fit, with the standard errors of its five numbers."""

    name: str
    source: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    errors: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    covariance: tuple[tuple[float, ...], ...] = ()
    """Of (E, ln A, ln B, alpha, beta): A moves with alpha and B with beta, so errors taken one by one spread far too wide."""

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return float(self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the least loss for a budget of FLOPs."""
        shape = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = shape * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / (6 * parameters)

    def drawn(self, seed: int) -> Law:
        """One law out of its spread: E, ln A, ln B, alpha and beta together, so that A and B stay positive."""
        import numpy as np

        middle = [self.E, math.log(self.A), math.log(self.B), self.alpha, self.beta]
        e, a, b, alpha, beta = (
            np.random.default_rng(seed).multivariate_normal(middle, self.covariance, method="svd").tolist()
        )
        return Law(self.name, self.source, max(0.0, e), math.exp(a), math.exp(b), max(0.05, alpha), max(0.05, beta))


HOFFMANN = Law("Hoffmann 2022", "arXiv 2203.15556, approach 3", 1.69, 406.4, 410.7, 0.34, 0.28)
"""Printed without errors."""
TOGETHER = (
    (0.00056815425, 0.0035001841, 0.0050396322, 0.00020751193, 0.000246434),
    (0.0035001841, 0.064076677, -0.030984339, 0.0038287425, -0.0015515886),
    (0.0050396322, -0.030984339, 0.14460325, -0.0019049848, 0.0071009575),
    (0.00020751193, 0.0038287425, -0.0019049848, 0.00022905312, -9.5455435e-05),
    (0.000246434, -0.0015515886, 0.0071009575, -9.5455435e-05, 0.0003489533),
)
"""Of the published points, resampled 200 times (benchmarks/scaling_spread.py): its errors are those that the paper prints, within
a fifth; it prints no covariance."""
BESIROGLU = Law(
    "Besiroglu 2024",
    "arXiv 2404.10102",
    1.8172,
    482.01,
    2085.43,
    0.3478,
    0.3658,
    (0.03, 124.58, 1293.23, 0.02, 0.02),
    TOGETHER,
)


def advise(
    flops: float, *, have_tokens: float = 0.0, served_tokens: float = 0.0, spread: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Any]:
    """Size and tokens for a budget, by each law and by the rule; `spread` is the budget's own range as factors.

    `have_tokens` are there already; `served_tokens` will be answered in the model's life (Sardana 2023, arXiv 2401.00448).
    Errors: BadRequest for a budget that cannot be meant.
    """
    if not BUDGETS[0] <= flops <= BUDGETS[1]:
        raise BadRequest(
            "No training has such a budget.",
            wanted=f"{BUDGETS[0]:.0e} to {BUDGETS[1]:.0e} FLOP",
            found=f"{flops:.3g} FLOP",
            do=f"give --petaflops-days from {BUDGETS[0] / PETAFLOPS_DAY:.1g} to {BUDGETS[1] / PETAFLOPS_DAY:.1g}, or as much in hours",
        )
    found = [_by_law(law, flops, spread, have_tokens) for law in (BESIROGLU, HOFFMANN)]
    rule = math.sqrt(flops / (6 * TOKENS_PER_PARAMETER))
    ruled = {
        "law": "20 tokens a parameter",
        "parameters": rule,
        "tokens": TOKENS_PER_PARAMETER * rule,
        "tokens_needed": max(0.0, TOKENS_PER_PARAMETER * rule - have_tokens),
        "loss": BESIROGLU.loss(rule, TOKENS_PER_PARAMETER * rule),
    }
    answer: dict[str, Any] = {"flops": flops, "petaflops_days": flops / PETAFLOPS_DAY, "advice": [*found, ruled]}
    if served_tokens:
        answer["with_serving"] = serving_aware(BESIROGLU, found[0]["loss"], served_tokens)
    return answer


def _by_law(law: Law, flops: float, spread: tuple[float, float], have_tokens: float) -> dict[str, Any]:
    parameters, tokens = law.optimum(flops)
    drawn = [law.drawn(seed) for seed in range(DRAWS)] if law.covariance else [law]
    pairs = [one.optimum(flops * factor) for one in drawn for factor in (spread if spread[0] != spread[1] else (1.0,))]
    sizes, counts = sorted(size for size, _ in pairs), sorted(count for _, count in pairs)
    return {
        "law": law.name,
        "source": law.source,
        "parameters": parameters,
        "parameters_range": _middle(sizes),
        "tokens": tokens,
        "tokens_range": _middle(counts),
        "loss": law.loss(parameters, tokens),
        "tokens_needed": max(0.0, tokens - have_tokens),
        "extrapolates": not all(
            low <= one <= high for one, (low, high) in zip((parameters, tokens), FITTED, strict=True)
        ),
    }


def serving_aware(law: Law, loss: float, served_tokens: float) -> dict[str, float]:
    """The size that reaches `loss` for the least 6 N D + 2 N served: smaller than the optimum, and trained longer."""
    best: tuple[float, float, float] | None = None
    floor = (law.A / (loss - law.E)) ** (1 / law.alpha)
    for step in range(1, 400):
        parameters = floor * 10 ** (step / 100)
        tokens = (law.B / (loss - law.E - law.A / parameters**law.alpha)) ** (1 / law.beta)
        total = 6 * parameters * tokens + 2 * parameters * served_tokens
        if best is None or total < best[2]:
            best = (parameters, tokens, total)
    assert best is not None
    return {"parameters": best[0], "tokens": best[1], "flops": best[2], "served_tokens": served_tokens, "loss": loss}


def fit(points: Iterable[tuple[float, float, float]], *, draws: int = 0) -> Law:
    """The law of (parameters, tokens, loss) rows: Huber on log loss, L-BFGS from a grid. `draws` resamplings give its errors.

    Errors: DataError for too few runs, for runs of one size or one length alone, and where loss does not fall with both.
    """
    import numpy as np

    rows = np.asarray(list(points), dtype=float)
    if len(rows) < 6 or not (rows > 0).all():
        raise DataError(
            "A law of five numbers needs at least 6 runs, all above zero.",
            wanted="6 rows or more",
            found=str(len(rows)),
            do="run more sizes",
        )
    _refuse_too_few_values(rows)
    best = _fitted(rows, _grid())
    law = Law("fitted", f"{len(rows)} runs", *_values(best))
    _refuse_no_fall(law, rows)
    errors = np.std(np.asarray(_again(rows, best, draws)), axis=0).tolist() if draws else [0.0] * 5
    return replace(law, errors=tuple(errors))


def _refuse_too_few_values(rows: Any) -> None:
    """A curve of three numbers along an axis needs three places on it. Errors: DataError."""
    for name, column in (("sizes", rows[:, 0]), ("numbers of tokens", rows[:, 1])):
        if (found := len(set(column.tolist()))) < 3:
            raise DataError(
                f"These runs have {found} different {name}: how loss falls between them cannot be told.",
                wanted=f"3 different {name} or more",
                found=str(found),
                do="run others, or ask `genwright scaling enough` for size alone",
            )


def _refuse_no_fall(law: Law, rows: Any) -> None:
    """Errors: DataError where a term of the law is no fall at all."""
    for name, scale, power, column in (("size", law.A, law.alpha, rows[:, 0]), ("tokens", law.B, law.beta, rows[:, 1])):
        least, most = float(column.min()), float(column.max())
        fall = scale * (least**-power - most**-power) if abs(power) < 10 else 0.0
        if not fall > LEAST_FALL * float(rows[:, 2].mean()):
            raise DataError(
                f"Loss does not fall with {name} in these runs: there is no law in them.",
                wanted=f"a loss that is lower where {name} is larger",
                found=f"a fitted change of {fall:.2g} nats from {least:.3g} to {most:.3g}",
                do="look at the rows: were all runs trained to their end, with a learning rate of their own?",
            )


def resampled(
    points: Iterable[tuple[float, float, float]], draws: int
) -> list[tuple[float, float, float, float, float]]:
    """(E, A, B, alpha, beta) of as many resamplings of the points: how the numbers vary, and vary together."""
    import numpy as np

    rows = np.asarray(list(points), dtype=float)
    return _again(rows, _fitted(rows, _grid()), draws)


def _again(rows: Any, best: Any, draws: int) -> list[tuple[float, float, float, float, float]]:
    import numpy as np

    chance = np.random.default_rng(0)
    return [_values(_fitted(rows[chance.integers(0, len(rows), len(rows))], [best])) for _ in range(draws)]


def enough(runs: Sequence[tuple[float, float]], target: float) -> dict[str, Any]:
    """Loss against size, L = E + A / N^alpha, of one's own small runs, and the size where `target` is met, with a range.

    Every alpha from 0.05 to 1 is tried; E and A follow by least squares. The range is of fits up to twice the least error.
    """
    import numpy as np

    sizes, losses = (np.asarray(column, dtype=float) for column in zip(*runs))
    if (different := len(set(sizes.tolist()))) < 3:
        raise DataError(
            "A curve of three numbers needs at least 3 runs of different sizes.",
            wanted="3 sizes or more",
            found=str(different),
            do="run one more size",
        )
    fits = []
    for alpha in np.linspace(0.05, 1.0, 96):
        terms = np.stack([np.ones_like(sizes), sizes**-alpha], 1)
        (floor, scale), *_ = np.linalg.lstsq(terms, losses, rcond=None)
        if scale > 0 and floor >= 0:
            fits.append(
                (float(np.square(terms @ [floor, scale] - losses).sum()), float(floor), float(scale), float(alpha))
            )
    if not fits:
        return {"met": False, "why": "loss does not fall with size in these runs"}
    fits.sort()
    close = [one for one in fits if one[0] <= 2 * fits[0][0] + 1e-12]
    needed = [(one[2] / (target - one[1])) ** (1 / one[3]) for one in close if target > one[1]]
    _, floor, scale, alpha = fits[0]
    if target <= floor or not needed:
        return {
            "met": False,
            "why": f"these runs level off at {floor:.4g}, above the target",
            "E": floor,
            "A": scale,
            "alpha": alpha,
        }
    size = (scale / (target - floor)) ** (1 / alpha)
    return {
        "met": True,
        "parameters": size,
        "parameters_range": [min(needed), max(needed)],
        "E": floor,
        "A": scale,
        "alpha": alpha,
        "extrapolates": bool(size > 3 * sizes.max()),
    }


def _grid() -> list[Any]:
    """Starts as Hoffmann's: logarithms of A, B and E, then the exponents."""
    return [
        (a, b, e, alpha, beta)
        for a in (2, 7, 12)
        for b in (2, 7, 12)
        for e in (-0.5, 0.5)
        for alpha in (0.2, 0.5)
        for beta in (0.2, 0.5)
    ]


def _fitted(rows: Any, starts: list[Any]) -> Any:
    import numpy as np

    from genwright.plan.minimise import lbfgs

    size, data, loss = np.log(rows).T

    def objective(theta: Any) -> tuple[float, Any]:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * size, b - beta * data, np.full_like(size, e)])
        top = terms.max(0)
        weights = np.exp(terms - top)
        total = weights.sum(0)
        off = top + np.log(total) - loss
        weights /= total
        slope = np.clip(off, -HUBER_DELTA, HUBER_DELTA)
        value = np.where(abs(off) <= HUBER_DELTA, off**2 / 2, HUBER_DELTA * (abs(off) - HUBER_DELTA / 2)).sum()
        gradient = np.array(
            [
                (slope * weights[0]).sum(),
                (slope * weights[1]).sum(),
                (slope * weights[2]).sum(),
                -(slope * weights[0] * size).sum(),
                -(slope * weights[1] * data).sum(),
            ]
        )
        return float(value) * 1e3, gradient * 1e3

    return min(
        (lbfgs(objective, np.asarray(start, dtype=float)) for start in starts), key=lambda found: objective(found)[0]
    )


def _values(theta: Any) -> tuple[float, float, float, float, float]:
    a, b, e, alpha, beta = (float(value) for value in theta)
    return _exp(e), _exp(a), _exp(b), alpha, beta


def _exp(value: float) -> float:
    """Of runs without a law a term may run away."""
    return math.exp(min(value, 700.0))


def _middle(values: list[float]) -> list[float]:
    """Of 90 in a hundred."""
    return [values[round(0.05 * (len(values) - 1))], values[round(0.95 * (len(values) - 1))]]
