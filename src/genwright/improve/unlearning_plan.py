"""What the stage `unlearn` will need: its training, what is asked before and after it, and the relearning that attacks its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import OBJECTIVES
from genwright.data.layouts import Setting, feed_of
from genwright.data.templates import encode_prompt
from genwright.engine.columns import blank_columns
from genwright.evaluate.forget import ATTEMPTS, Fact
from genwright.improve.planning import weights_bytes
from genwright.improve.unlearning import MAX_TOKENS, Request, balanced, of_project, plain, read, recipe_of
from genwright.improve.workshop import Workshop
from genwright.models.families import Head
from genwright.models.sources import cache_folder
from genwright.plan.estimate import Estimate, Range, bill
from genwright.plan.here.rungs import Asking, Machine, Reading, plan_prompting, plan_training

ANSWER_TOKENS = 64
"""The longest answer that `evaluate.forget.Witness` lets a model write."""
KEPT = (
    "train_peak_bytes",
    "evaluate_peak_bytes",
    "merge_peak_bytes",
    "flops_per_step",
    "step_seconds",
    "train_seconds",
)
"""Quantities of the training that the stage has too; it writes no checkpoint and resumes from none."""


def plan_unlearning(workshop: Workshop, base: Path) -> Estimate:
    """As if the model chosen first were what forgets. Errors: BadRequest, DataError for a request that makes no sense."""
    request = _request(workshop.spec, workshop.model, base)
    forget, retain, sets = read(request)
    recipe, tokenizer, hardware = recipe_of(request), workshop.tokenizer, workshop.spec.hardware
    machine = Machine(cache_folder() / "calibrations", hardware.watts, hardware.usd_per_hour)
    rows = [*(replace(fact.row(), forget=True) for fact in forget), *(fact.row() for fact in retain)]
    feed = feed_of(rows, Setting(recipe.objective, tokenizer, "decoder", MAX_TOKENS), workshop.pad_id)
    feed = blank_columns(recipe, balanced(feed, len(forget)), workshop.config)
    weights, asked = weights_bytes(workshop.model), [*forget, *(fact for own in sets.values() for fact in own)]
    trained = plan_training(
        recipe,
        workshop.config,
        feed,
        _asking(forget, asked, tokenizer),
        machine,
        weights_bytes=weights,
        say=workshop.say,
    )
    taught = replace(recipe, objective=OBJECTIVES["instruction"]())
    reading = Reading(plain(asked, taught, tokenizer), taught.objective, Head())
    read_once = plan_prompting(
        workshop.config,
        Asking([], [], 0, reading),
        machine,
        precision=recipe.precision,
        weights_bytes=weights,
        say=workshop.say,
    )
    models = 2 if workshop.spec.unlearn.never_saw else 1
    times = 1 + models  # before, after, and the model that never saw the rows
    each = sum(2 + len(fact.wrong) for fact in asked) / len(asked)  # the answer, its other words, the wrong ones
    spent = trained.quantities["evaluate_seconds"] * times + read_once.quantities["seconds"] * (times * each)
    again = trained.quantities["step_seconds"] * (
        models * request.relearn_steps * len(forget[::2]) / request.batch_size
    )
    return _told(trained, spent, again, hardware)


def _request(spec: Any, model: Path, base: Path) -> Request:
    """The project's; another project that has no result yet is planned as a model like this one."""
    try:
        return of_project(spec, model, base)
    except BadRequest:
        return of_project(replace(spec, unlearn=replace(spec.unlearn, never_saw="")), model, base)


def _asking(forget: Sequence[Fact], asked: Sequence[Fact], tokenizer: Any) -> Asking:
    """Every row once, those to forget again with half of their answer given, and in other words."""
    length = lambda fact: len(encode_prompt(list(fact.messages), tokenizer))
    again = [fact for fact in forget for _ in range(1 + len(ATTEMPTS) + len(fact.questions))]
    prompts = [length(fact) for fact in (*asked, *again)]
    answers = [len(tokenizer(fact.answer, add_special_tokens=False).input_ids) for fact in (*asked, *again)]
    return Asking(prompts, answers, ANSWER_TOKENS)


def _told(trained: Estimate, spent: Range, again: Range, hardware: Any) -> Estimate:
    quantities = {name: trained.quantities[name] for name in KEPT if name in trained.quantities}
    peaks = [value for name, value in quantities.items() if name.endswith("_peak_bytes")]
    seconds = quantities["train_seconds"] + spent + again
    quantities |= {"host_bytes": max(peaks, key=lambda peak: peak.value), "evaluate_seconds": spent, "seconds": seconds}
    known, unknown = bill(seconds, watts=hardware.watts, usd_per_hour=hardware.usd_per_hour)
    notes = ("asking before and after, and relearning, are in its time; suites and a reference's columns are not",)
    return replace(
        trained, quantities={**quantities, **known}, unknown=unknown, notes=(*trained.notes[:2], *notes), facts={}
    )
