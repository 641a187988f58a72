"""A project's climb: plan each rung, check it against the budget, try it, and write down what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import METRICS
from genwright.improve.ladder import Rung, climb
from genwright.improve.workshop import Workshop

JOULES_PER_KWH = 3.6e6


def climb_project(workshop: Workshop) -> dict[str, Any]:
    """Adapt's summary. Errors: BadRequest when the budget affords no rung at all; whatever an attempt raises."""
    spec, metric = workshop.spec, METRICS[workshop.metric]
    planned = {name: workshop.plan(name) for name in workshop.ladder}
    attempts: dict[str, dict[str, Any]] = {}

    def attempt(name: str) -> tuple[float, Mapping[str, float]]:
        attempts[name] = workshop.attempt(name, planned[name])
        return attempts[name]["score"]["value"], cost(attempts[name]["measured"])

    rungs = [Rung(name, cost(estimate.to_json())) for name, estimate in planned.items()]
    budget = {name: amount for name, amount in vars(spec.scope.budget).items() if amount is not None}
    climbed = climb(rungs, attempt, target=spec.scope.target, higher_is_better=metric.higher_is_better, budget=budget)
    if not climbed.chosen:
        raise BadRequest(
            "The budget affords no rung of the ladder.",
            found=climbed.why,
            do="raise scope.budget, or choose a cheaper ladder",
        )
    return {
        "metric": workshop.metric, "target": spec.scope.target, "met": climbed.met, "chosen": climbed.chosen, "why": climbed.why,
        "recipes": {name: workshop.recipe(name).to_json() for name in attempts if workshop.trains(name)},
        "rungs": [
            attempts.get(tried.name) or {"name": tried.name, "skipped": tried.skipped, "planned": planned[tried.name].to_json()}
            for tried in climbed.tried
        ],
    }  # fmt: skip


def cost(quantities: Mapping[str, Any]) -> dict[str, float]:
    """A plan's or a measurement's seconds, dollars and joules, in the units of a budget."""
    known = {
        "hours": (quantities.get("seconds"), 3600.0),
        "usd": (quantities.get("usd"), 1.0),
        "kwh": (quantities.get("joules"), JOULES_PER_KWH),
    }
    return {name: amount / unit for name, (amount, unit) in known.items() if amount is not None}
