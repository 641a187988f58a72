"""Suites of rows of the project's own: read, asked of several systems, compared.

A suite is a TOML file (or a table of one): its form, its rows, its metric. Every error is said before anything is asked.
"""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, DataError, GenwrightError
from genwright.base.registry import nearest
from genwright.catalogue.parts import METRICS, SUITES
from genwright.evaluate.forms import Form, Options, Row, Scored, Target, checked, options_of, suite_rows
from genwright.evaluate.statistics import Paired, bootstrap, holm, minimum_detectable_difference, paired

KEYS = ("name", "form", "file", "metric", "group", "seeds")
"""Of every suite; a form has more of its own."""


@dataclass(frozen=True)
class Suite:
    """Rows, and how they are asked and scored."""

    name: str
    form: Form
    rows: Sequence[Row]
    metric: str
    own: Mapping[str, Any] = field(default_factory=dict)
    """The form's options."""
    groups: tuple[str, ...] | None = None
    """Rows of one group are resampled together: they are not independent."""
    seeds: int = 1

    @property
    def units(self) -> int:
        """How many independent rows there are."""
        return len(set(self.groups)) if self.groups else len(self.rows)

    def first(self, limit: int) -> Suite:
        """With its first rows only; 0 is all."""
        groups = self.groups[:limit] if self.groups and limit else self.groups
        return Suite(self.name, self.form, self.rows[: limit or None], self.metric, self.own, groups, self.seeds)


def read_suites(path: Path, *, seeds: int = 1) -> list[Suite]:
    """The suite of a TOML file, or those of its [[suite]] tables. `seeds` is for those that say none. Errors: BadRequest."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise BadRequest(f"There is no suite {path}.", wanted="a TOML file with form and file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path.name} is not TOML: {error}.", do="correct the line; text needs quotes") from None
    tables = given.get("suite", [given])
    if not isinstance(tables, list) or ("suite" in given and len(given) > 1):
        raise BadRequest(f"{path.name}: the suites of a file are [[suite]] tables, and nothing stands beside them.")
    plain = path.stem if len(tables) == 1 else ""
    return [suite_of({"name": plain or f"{path.stem}-{number}", **table}, path.parent, path.name, seeds)
            for number, table in enumerate(tables, 1)]  # fmt: skip


def suite_of(given: Mapping[str, Any], base: Path, where: str, seeds: int = 1) -> Suite:
    """A suite of a table of keys; paths start at `base`. Errors: BadRequest, DataError."""
    for key in ("form", "file"):
        if not isinstance(given.get(key), str) or not given[key]:
            raise BadRequest(
                f"{where}: '{key}' is missing.", wanted=f"{key} = TEXT", found=", ".join(given) or "nothing"
            )
    for key, kind in {"name": str, "metric": str, "group": str, "seeds": int}.items():
        if key in given and type(given[key]) is not kind:
            raise BadRequest(f"{where}: {key} has a value of the wrong type.", found=repr(given[key]))
    form: Form = SUITES[given["form"]]
    own = options_of(form, {key: value for key, value in given.items() if key not in KEYS}, where)
    metric = metric_of(form, given.get("metric", ""), where)
    rows = form.read(base / given["file"], own) if form.read else suite_rows(base / given["file"])
    checked(rows, form, given["file"])
    repeats = given.get("seeds", seeds if own.get("temperature") else 1)
    if repeats < 1 or (repeats > 1 and not own.get("temperature")):
        raise BadRequest(
            f"{where}: seeds = {repeats} has no effect.", wanted="1, or more with a temperature above 0: without chance "
            "every repetition is the same", found=f"temperature {own.get('temperature', 'of no meaning to this form')}",
        )  # fmt: skip
    return Suite(str(given["name"]), form, rows, metric, own, groups_of(rows, given.get("group", ""), where), repeats)


def metric_of(form: Form, name: str, where: str) -> str:
    """The metric asked for, or the form's first. Errors: BadRequest for one that does not fit the form."""
    if not form.metrics or name in form.metrics:
        return name
    if not name:
        return form.metrics[0]
    close = nearest(name, list(form.metrics))
    what = f"the metric '{name}' does not fit the form" if name in METRICS else f"there is no metric '{name}' for"
    raise BadRequest(
        f"{where}: {what} {form.name}.", wanted=f"one of {', '.join(form.metrics)}",
        do=f"did you mean '{close}'?" if close and name not in METRICS else "",
    )  # fmt: skip


def groups_of(rows: Sequence[Row], name: str, where: str) -> tuple[str, ...] | None:
    """What each row's field says. Errors: DataError for a row without it."""
    if not name:
        return None
    without = next((number for number, row in enumerate(rows, 1) if name not in row), 0)
    if without:
        raise DataError(
            f"{where}: row {without} has no field '{name}' to group by.", found=", ".join(rows[without - 1])
        )
    return tuple(str(row[name]) for row in rows)


def detectable(suite: Suite) -> float | None:
    """The smallest difference that this suite shows 4 times in 5, in points; None where scores are not percentages."""
    return minimum_detectable_difference(suite.units) if suite.form.percent else None


@dataclass(frozen=True)
class Judged:
    """One system on one suite: scores are means over the seeds."""

    scored: Scored
    per_seed: list[float]


def judged(suite: Suite, target: Target, seed: int = 0) -> Judged:
    """Ask every row, once a seed. Errors: GenwrightError for a form that gives other than one number a row."""
    runs = [
        suite.form.run(target, suite.rows, Options(suite.metric, seed + turn, suite.own)) for turn in range(suite.seeds)
    ]
    for run in runs:
        if len(run.scores) != len(suite.rows) or not all(map(math.isfinite, run.scores)):
            raise GenwrightError(
                f"{suite.name}: the form {suite.form.name} did not score every row.", wanted=f"{len(suite.rows)} numbers",
                found=f"{sum(map(math.isfinite, run.scores))} numbers",
            )  # fmt: skip
    first = runs[0]
    scores, weights = over_seeds(runs)
    also = {name: statistics.fmean(run.also.get(name, 0.0) for run in runs) for name in first.also}
    whole = Scored(scores, first.answers, also, weights, first.lower_is_better)
    return Judged(whole, [bootstrap(run.scores, weights=run.weights).value for run in runs])


def over_seeds(runs: Sequence[Scored]) -> tuple[list[float], list[float] | None]:
    """Each row's mean score over the seeds that it counts in, and its mean weight."""
    each = list(zip(*(run.scores for run in runs)))
    weighed = list(zip(*(run.weights or [1.0] * len(run.scores) for run in runs)))
    total = lambda scores, weights: sum(score * weight for score, weight in zip(scores, weights))
    scores = [total(one, weights) / sum(weights) if sum(weights) else one[0] for one, weights in zip(each, weighed)]
    return scores, None if runs[0].weights is None else [statistics.fmean(weights) for weights in weighed]


Say = Callable[[str], Any]

UNCLEAR = "no difference shown"


def evaluate(suites: Sequence[Suite], targets: Sequence[Target], *, seed: int = 0, say: Say = print) -> dict[str, Any]:
    """Every suite on every target; the first target is what the others are compared with.

    The result is JSON: suites with the systems' intervals, and comparisons whose p-values are corrected together (Holm).
    "better" and "worse" are said only where the interval does not reach 0 and the corrected p is below 0.05.
    Errors: BadRequest, before anything is asked.
    """
    refuse(suites, targets)
    for suite in suites:
        say(foretold(suite))
    results: dict[str, dict[str, Judged]] = {}
    for target in targets:  # one model in memory at a time
        results[target.name] = asked(suites, target, seed=seed, say=say)
        target.close()
    return {"seed": seed, "systems": list(results), **told(suites, results)}


def asked(suites: Sequence[Suite], target: Target, *, seed: int = 0, say: Say = print) -> dict[str, Judged]:
    """Every suite, by name, of one target."""
    found = {}
    for suite in suites:
        found[suite.name] = judged(suite, target, seed)
        say(f"{target.name} on {suite.name}: {statistics.fmean(found[suite.name].per_seed):.2f}")
    return found


def told(suites: Sequence[Suite], results: Mapping[str, Mapping[str, Judged]]) -> dict[str, Any]:
    """{suites, comparisons} of what systems scored: system -> suite -> scores. The first system is the one compared with."""
    by_suite = {suite.name: {name: one[suite.name] for name, one in results.items()} for suite in suites}
    first, *others = results
    comparisons = [_compared(suite, first, other, by_suite[suite.name]) for suite in suites for other in others]
    for one, p_value in zip(comparisons, holm([one["p_value"] for one in comparisons])):
        one["p_holm"] = p_value
        one["verdict"] = one["verdict"] if p_value < 0.05 else UNCLEAR
    return {"suites": [_suite_told(suite, by_suite[suite.name]) for suite in suites], "comparisons": comparisons}


def refuse(suites: Sequence[Suite], targets: Sequence[Target]) -> None:
    """Errors: BadRequest for what cannot be asked or told apart."""
    if not suites or not targets:
        raise BadRequest(
            "There is nothing to judge.", wanted="a suite and a system", do="genwright evaluate SYSTEM --suite FILE"
        )
    for kind, names in {"suites": [one.name for one in suites], "systems": [one.name for one in targets]}.items():
        if len(set(names)) < len(names):
            raise BadRequest(
                f"Two {kind} have the same name.", found=", ".join(names), do="give one of them another name"
            )
    for target in targets:
        for suite in suites:
            wanted = tuple(name for name in suite.form.asks if name not in getattr(target, "does", suite.form.asks))
            if wanted:
                raise BadRequest(
                    f"{suite.name}: {target.name} only writes.", wanted="a model on this machine: an address tells no likelihoods",
                    do="leave this suite out, or name a model",
                )  # fmt: skip


def foretold(suite: Suite) -> str:
    """What is said before the run."""
    smallest = detectable(suite)
    sees = (
        f"a true difference below {smallest:.1f} points will mostly not be seen"
        if smallest
        else "its unit is no percentage"
    )
    groups = f" in {suite.units} groups" if suite.groups else ""
    seeds = f", {suite.seeds} seeds" if suite.seeds > 1 else ""
    return f"{suite.name}: {len(suite.rows)} rows{groups}{seeds}, {suite.metric or 'its own metric'}; {sees}"


def _suite_told(suite: Suite, results: Mapping[str, Judged]) -> dict[str, Any]:
    return {
        "name": suite.name, "form": suite.form.name, "metric": suite.metric, "rows": len(suite.rows), "seeds": suite.seeds,
        "minimum_detectable_difference": detectable(suite),
        "lower_is_better": next(iter(results.values())).scored.lower_is_better,
        "systems": {name: _system_told(suite, one) for name, one in results.items()},
    }  # fmt: skip


def _system_told(suite: Suite, one: Judged) -> dict[str, Any]:
    interval = bootstrap(one.scored.scores, groups=suite.groups, weights=one.scored.weights)
    spread = statistics.stdev(one.per_seed) if len(one.per_seed) > 1 else None
    return {
        **vars(interval), "per_seed": one.per_seed, "seed_spread": spread, "also": one.scored.also, "scores": one.scored.scores,
        "answers": one.scored.answers,
    }  # fmt: skip


def _compared(suite: Suite, before: str, after: str, results: Mapping[str, Judged]) -> dict[str, Any]:
    one, two = results[before].scored, results[after].scored
    both = None if one.weights is None or two.weights is None else [min(pair) for pair in zip(one.weights, two.weights)]
    if both and not any(both):
        good = bad = Paired(0.0, -100.0, 100.0, 1.0, "no row counts in both", 0, better=False)
    else:
        ask = lambda higher: paired(
            one.scores, two.scores, groups=suite.groups, weights=both, higher_is_better=higher
        )  # fmt: skip
        good, bad = ask(not one.lower_is_better), ask(one.lower_is_better)
    told = {name: value for name, value in vars(good).items() if name != "better"}
    verdict = "better" if good.better else "worse" if bad.better else UNCLEAR
    return {"suite": suite.name, "before": before, "after": after, **told, "verdict": verdict}


def stripped(found: dict[str, Any]) -> dict[str, Any]:
    """Without the rows' scores and answers: what is printed."""
    lean = lambda system: {name: value for name, value in system.items() if name not in ("scores", "answers")}
    suites = [
        {**suite, "systems": {name: lean(one) for name, one in suite["systems"].items()}} for suite in found["suites"]
    ]
    return {**found, "suites": suites}
