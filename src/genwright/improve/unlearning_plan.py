"""What the stage `unlearn` will need: its training, what is asked before and after it, and the relearning that attacks its result.

Time is the sum of what `unlearning.unlearn` does, each part traced at its own size: the columns that the method asks of a model
(and the second training of generic-targets), the training, every asking, the suites before and after, and the relearning with a
look at the other rows after each of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.data.layouts import Feed, Setting, feed_of, plain_feed
from genwright.data.pack import pack
from genwright.data.sources import read_rows
from genwright.data.templates import encode_rows
from genwright.engine.columns import blank_columns
from genwright.engine.recipe import Recipe
from genwright.evaluate.forget import MOST_TOKENS
from genwright.evaluate.suites import read_suites
from genwright.improve.planning import weights_bytes
from genwright.improve.unlearning import MAX_TOKENS, Request, balanced, of_project, plain, read, recipe_of
from genwright.improve.unlearning_asked import all_facts, in_batches, of_suite, packed, read_at_once, written_to
from genwright.improve.workshop import Workshop
from genwright.models.families import Head
from genwright.models.sources import cache_folder
from genwright.plan.estimate import Estimate, Range, around, bill
from genwright.plan.here.rungs import Asking, Machine, Reading, plan_prompting, plan_training

MODELS_ASKED = {"generic_ids_N": 2}
"""That a column is made by; the others take one."""
KEPT = (
    "train_peak_bytes",
    "evaluate_peak_bytes",
    "merge_peak_bytes",
    "flops_per_step",
    "step_seconds",
    "train_seconds",
)
"""Quantities of the training that the stage has too; it writes no checkpoint and resumes from none."""
NOTHING = around(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Planner:
    """Prices the parts of one request."""

    workshop: Workshop
    request: Request
    machine: Machine

    def trained(self, recipe: Recipe, feed: Feed, asking: Asking) -> Estimate:
        """A training, and one asking of its result."""
        workshop = self.workshop
        return plan_training(recipe, workshop.config, feed, asking, self.machine,
                             weights_bytes=weights_bytes(workshop.model), say=workshop.say)  # fmt: skip

    def asked(self, asking: Asking) -> Range:
        """Seconds of asking a model that has learned to end its answers."""
        workshop, precision = self.workshop, recipe_of(self.request).precision
        found = plan_prompting(workshop.config, asking, self.machine, precision=precision, say=workshop.say,
                               weights_bytes=weights_bytes(workshop.model), writes_to_the_limit=False)  # fmt: skip
        return found.quantities["seconds"]

    def read(self, feed: Feed, objective: Any, batches: Sequence[Sequence[int]]) -> Range:
        """Seconds of reading these batches."""
        return self.asked(Asking([], [], 0, Reading(feed, objective, Head(), batches))) if batches else NOTHING


def plan_unlearning(workshop: Workshop, base: Path) -> Estimate:
    """As if the model chosen first were what forgets. Errors: BadRequest, DataError for a request that makes no sense."""
    request, hardware = _request(workshop.spec, workshop.model, base), workshop.spec.hardware
    planner = Planner(
        workshop, request, Machine(cache_folder() / "calibrations", hardware.watts, hardware.usd_per_hour)
    )
    forget, retain, sets = read(request)
    recipe, tokenizer = recipe_of(request), workshop.tokenizer
    rows = [*(replace(fact.row(), forget=True) for fact in forget), *(fact.row() for fact in retain)]
    feed = feed_of(rows, Setting(recipe.objective, tokenizer, "decoder", MAX_TOKENS), workshop.pad_id)
    feed = blank_columns(recipe, balanced(feed, len(forget)), workshop.config)
    asking = written_to(forget, sets, tokenizer)
    trained = planner.trained(recipe, feed, asking)
    taught = replace(recipe, objective=OBJECTIVES["instruction"](), adapter=ADAPTERS["full"]())
    known = plain(all_facts(forget, sets), taught, tokenizer)
    models = 2 if workshop.spec.unlearn.never_saw else 1
    asked = trained.quantities["evaluate_seconds"] + planner.read(known, taught.objective, read_at_once(forget, sets))
    asked = asked + _texts(planner, taught.objective)
    asked = asked * (1 + models)  # before, after, and the model that never saw the rows
    suites = _suites(planner, asking, taught.objective)
    columns = _columns(planner, recipe, feed, plain(forget, taught, tokenizer), taught)
    again = _relearning(planner, plain(forget, taught, tokenizer), taught) * models
    return _told(trained, asked + suites * 2, columns + again, hardware)


def _suites(planner: Planner, asking: Asking, objective: Any) -> Range:
    """All of them, once."""
    spent = NOTHING
    for suite in (suite for file in planner.request.suites for suite in read_suites(file)):
        found = of_suite(suite, planner.workshop.tokenizer, asking.answers)
        once = (
            planner.asked(found)
            if isinstance(found, Asking)
            else planner.read(plain_feed(found), objective, packed(found))
        )
        spent = spent + once * suite.seeds
    return spent


def _texts(planner: Planner, objective: Any) -> Range:
    """Those whose bits a token are told, once."""
    if planner.request.texts is None:
        return NOTHING
    rows = encode_rows(read_rows(planner.request.texts).rows, planner.workshop.tokenizer, max_tokens=MOST_TOKENS)
    return planner.read(plain_feed(rows), objective, in_batches(range(len(rows))))


def _columns(planner: Planner, recipe: Recipe, feed: Feed, forget: Feed, taught: Recipe) -> Range:
    """What is asked of a model about each row before the training, and the training of the second model."""
    models = sum(MODELS_ASKED.get(name, 1) for name in recipe.objective.columns)
    if not models:
        return NOTHING
    batches = pack([row.num_tokens for row in feed.encoded], recipe.pack_tokens)
    spent = planner.read(feed, recipe.objective, batches) * models
    if models == 1:
        return spent
    second = planner.trained(taught, forget, Asking([], [], 0, Reading(forget, taught.objective, Head())))
    return spent + second.quantities["train_seconds"]


def _relearning(planner: Planner, forget: Feed, taught: Recipe) -> Range:
    """Of one model: the steps on every other row, and the reading of the rest before them and after each."""
    steps, numbers = planner.request.relearn_steps, range(len(forget))
    others = Reading(forget, taught.objective, Head(), in_batches(numbers[1::2] or numbers))
    if not steps:
        return planner.asked(Asking([], [], 0, others))
    feed = replace(forget, encoded=forget.encoded[::2])
    recipe = replace(taught, adapter=recipe_of(planner.request).adapter, steps=steps, batch_size=len(feed))
    found = planner.trained(recipe, feed, Asking([], [], 0, others))
    return found.quantities["train_seconds"] + found.quantities["evaluate_seconds"] * (steps + 1)


def _request(spec: Any, model: Path, base: Path) -> Request:
    """The project's; another project that has no result yet is planned as a model like this one."""
    try:
        return of_project(spec, model, base)
    except BadRequest:
        return of_project(replace(spec, unlearn=replace(spec.unlearn, never_saw="")), model, base)


def _told(trained: Estimate, spent: Range, again: Range, hardware: Any) -> Estimate:
    quantities = {name: trained.quantities[name] for name in KEPT if name in trained.quantities}
    peaks = [value for name, value in quantities.items() if name.endswith("_peak_bytes")]
    seconds = quantities["train_seconds"] + spent + again
    quantities |= {"host_bytes": max(peaks, key=lambda peak: peak.value), "evaluate_seconds": spent, "seconds": seconds}
    known, unknown = bill(seconds, watts=hardware.watts, usd_per_hour=hardware.usd_per_hour)
    notes = (
        "asking before and after, suites, columns and relearning are in its time; a judge behind an address is not",
    )
    return replace(
        trained, quantities={**quantities, **known}, unknown=unknown, notes=(*trained.notes[:2], *notes), facts={}
    )
