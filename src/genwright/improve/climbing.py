"""A project's climb: plan each rung, check it against the budget, try it, and write down what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import METRICS
from genwright.improve import attempting
from genwright.improve.budget import cost, seconds_left, spent_seconds
from genwright.improve.failures import error_analysis
from genwright.improve.ladder import Rung, Tried, climb
from genwright.improve.lessons import recipes_of
from genwright.improve.planning import plan_ladder
from genwright.improve.workshop import FINISHED, Workshop


def climb_project(workshop: Workshop) -> dict[str, Any]:
    """Adapt's summary. Errors: BadRequest when the budget affords no rung at all; whatever an attempt raises."""
    spec, metric = workshop.spec, METRICS[workshop.metric]
    planned = plan_ladder(workshop)
    attempts: dict[str, dict[str, Any]] = {}

    def attempt(name: str, left: Mapping[str, float]) -> Tried:
        done = attempting.attempt(workshop, name, planned[name], seconds=seconds_left(left, spec.hardware))
        attempts[name] = done
        return tried(done, spec, metric.higher_is_better)

    finished = lambda name: (workshop.made / name / FINISHED).exists()
    rungs = [
        Rung(
            name, cost(estimate.quantities["seconds"].high, spec.hardware),
            {} if finished(name) else cost(spent_seconds(workshop.made / name), spec.hardware),
        )
        for name, estimate in planned.items()
    ]  # fmt: skip
    budget = {name: amount for name, amount in vars(spec.scope.budget).items() if amount is not None}
    climbed = climb(rungs, attempt, target=spec.scope.target, higher_is_better=metric.higher_is_better, budget=budget)
    if not climbed.chosen:
        raise BadRequest(
            "The budget affords no rung of the ladder.",
            found=climbed.why,
            do="raise scope.budget, or choose a cheaper ladder",
        )
    scored = [name for name, done in attempts.items() if not done["skipped"]]
    return {
        "metric": workshop.metric, "target": spec.scope.target, "stop_at": spec.adapt.stop_at, "met": climbed.met,
        "chosen": climbed.chosen, "why": climbed.why,
        "recipes": {
            part: recipe.to_json()
            for name in scored if workshop.trains(name)
            for part, recipe in recipes_of(workshop, name).items()
        },
        "rungs": [
            attempts.get(one.name) or {"name": one.name, "skipped": one.skipped, "planned": planned[one.name].to_json()}
            for one in climbed.tried
        ],
        "errors": error_analysis([(name, workshop.made / name / "predictions.jsonl") for name in scored], metric.higher_is_better),
    }  # fmt: skip


def tried(done: Mapping[str, Any], spec: Any, higher_is_better: bool) -> Tried:
    """A finished attempt as the rule of climbing sees it: the bound is the value, or the interval's end nearest to failing."""
    spent = cost(done["spent_seconds"], spec.hardware)
    if done["skipped"]:
        return Tried(None, None, spent, done["skipped"])
    score = done["score"]
    pessimist = score["low"] if higher_is_better else score["high"]
    return Tried(score["value"], pessimist if spec.adapt.stop_at == "interval" else score["value"], spent)
