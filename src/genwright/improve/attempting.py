"""One attempt at a rung: make its solution, judge it on validation rows, write down what it took, and publish it.

Files of a rung:

    <rung>/solution.json             how it answers       <rung>/adapter/ or <rung>/model/    what was trained
    <rung>/attempt.json              score, planned, measured: written last, so a rung that has it is finished
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.files import files_below, write_atomic
from genwright.catalogue.parts import RUNGS
from genwright.improve.budget import Meter, OutOfBudget
from genwright.improve.judging import judge
from genwright.improve.lessons import LESSONS, lesson_of
from genwright.improve.pairs import NothingToLearn, fold, make_pairs
from genwright.improve.planning import place_of, refuse_what_does_not_fit
from genwright.improve.prompts import Prompt
from genwright.improve.searching import TRIALS, kept, search_lora, search_prompt
from genwright.improve.solution import write_solution
from genwright.improve.together import train_together
from genwright.improve.training import MILESTONES, train_to_end
from genwright.improve.workshop import FINISHED, Workshop
from genwright.models.families import Head
from genwright.models.tokenizer_files import copy_tokenizer
from genwright.plan.estimate import Estimate
from genwright.plan.here.memory import memory_is_an_error
from genwright.plan.here.verify import measuring

UNPUBLISHED = frozenset({"training", TRIALS, LESSONS})
"""Folders of a rung that only serve to make it, or to go on after a kill."""


def attempt(workshop: Workshop, rung: str, planned: Estimate, *, seconds: float = math.inf) -> dict[str, Any]:
    """What came of a rung. A finished rung is only read.

    After `seconds` of wall time, those of killed processes included, it stops: training ends early and is judged by
    what it has learned; a judgement that does not end in time leaves no score.
    """
    folder = workshop.made / rung
    finished = folder / FINISHED
    if finished.exists():
        return dict(json.loads(finished.read_text()))
    refuse_what_does_not_fit(workshop, rung, planned)
    workshop.events.write("planned", stage="adapt", rung=rung, **planned.to_json())
    with Meter(folder) as meter:
        workshop.until = time.time() + seconds - meter.before
        try:
            outcome = _attempted(workshop, rung, planned)
        except OutOfBudget:
            outcome = {"skipped": f"{rung}: stopped, because what is left of the budget was spent"}
            workshop.say(outcome["skipped"])
        except NothingToLearn as nothing:
            outcome = {"skipped": str(nothing)}
            workshop.say(outcome["skipped"])
        finally:
            workshop.until = math.inf
    told = {"name": rung, "skipped": "", "planned": planned.to_json(), "spent_seconds": meter.seconds, **outcome}
    write_atomic(finished, json.dumps(told, indent=1))
    return told


def _attempted(workshop: Workshop, rung: str, planned: Estimate) -> dict[str, Any]:
    measured = make(workshop, rung, judging_seconds=planned.quantities["evaluate_seconds"].high)
    judgement = judge(workshop, rung, workshop.judged_on, split="validation")
    judgement.write(workshop.made / rung / "predictions.jsonl", workshop.judged_on)
    measured |= {"evaluate_seconds": judgement.seconds, "evaluate_peak_bytes": judgement.peak_bytes}
    measured["seconds"] = measured.get("train_seconds", 0.0) + judgement.seconds
    peaks = [value for name, value in measured.items() if name.endswith("_peak_bytes") and value]
    measured["host_bytes"] = max(peaks)
    measured |= _bill(measured["seconds"], workshop.spec.hardware)
    workshop.events.write("measured", stage="adapt", rung=rung, **measured)
    return {"score": judgement.intervals[workshop.metric], "scores": judgement.intervals, "measured": measured}


def make(workshop: Workshop, rung: str, *, judging_seconds: float) -> dict[str, Any]:
    """Leave solution.json and what it names; returns what was measured. Training leaves time for judging."""
    folder, made = workshop.made / rung, RUNGS[rung](workshop.spec, rung)
    folder.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Any] = {}
    prompt = Prompt(examples=made.examples)
    with measuring() as searching:
        if made.search == "prompt":
            prompt = search_prompt(workshop, rung, folder, workshop.within_budget)
        if made.search == "lora":
            search_lora(workshop.job(rung, folder, place_of(workshop, rung)), folder, workshop.within_budget)
    if made.method:
        limit, workshop.until = workshop.until, workshop.until - judging_seconds
        measured = _FIRST[made.first](workshop, rung)
        workshop.until = limit
    if made.search:
        measured["search_seconds"] = searching.seconds
        measured["train_seconds"] = measured.get("train_seconds", 0.0) + searching.seconds
    if made.form == "model":
        copy_tokenizer(workshop.model, folder / "model")
    head = workshop.head if made.form != "prompt" or workshop.reads else Head()
    write_solution(folder, form=made.form, examples=prompt.examples, head=head, prompt=prompt)
    return measured


def _train(workshop: Workshop, rung: str) -> dict[str, Any]:
    return _train_lesson(workshop, rung, workshop.made / rung, RUNGS[rung](workshop.spec, rung).form)


def _read_on(workshop: Workshop, rung: str) -> dict[str, Any]:
    """Read raw text, then adapt; what is read once stands on the disk, and its checkpoints go."""
    folder = workshop.made / rung
    first = folder / LESSONS / "reading"
    read = kept(
        first / "measured.json",
        lambda: _train_lesson(_lesson(workshop, rung, "reading"), rung, first, "model", "reading"),
    )
    copy_tokenizer(workshop.model, first / "model")
    shutil.rmtree(first / "training", ignore_errors=True)
    then = _train_lesson(_lesson(workshop, rung, "after-reading"), rung, folder, "model", "after-reading")
    return added(read, then)


def _align(workshop: Workshop, rung: str) -> dict[str, Any]:
    """Find wrong answers, prefer the right ones, and fold what was learned into the model it started from."""
    folder = workshop.made / rung
    first = folder / LESSONS / "aligning"
    with measuring() as finding, memory_is_an_error("evaluate", rung):
        pairs = make_pairs(workshop, rung)
    lesson = _lesson(workshop, rung, "aligning")
    trained = _train_lesson(lesson, rung, first, "adapter", "aligning")
    with measuring() as folding, memory_is_an_error("merge", rung):
        _fold_all(lesson, first, folder)
    found = {
        "train_seconds": finding.seconds,
        "train_peak_bytes": finding.peak_bytes,
        "merge_peak_bytes": folding.peak_bytes,
    }
    return added(found, trained) | {"pairs": pairs, "pairs_seconds": finding.seconds}


def _fold_all(lesson: Workshop, learned: Path, folder: Path) -> None:
    """The result of a lesson and its milestones, adapters all, as models that need nothing of what served to make them."""
    for name in ("model", MILESTONES):
        shutil.rmtree(folder / name, ignore_errors=True)
    fold(lesson.model, learned / "adapter", folder / "model")
    for step in sorted((learned / MILESTONES).glob("step-*")):
        fold(lesson.model, step / "adapter", folder / MILESTONES / step.name / "model")
        write_solution(folder / MILESTONES / step.name, form="model", examples=0, head=lesson.head)


_FIRST: dict[str, Callable[[Workshop, str], dict[str, Any]]] = {"": _train, "reading": _read_on, "pairs": _align}


def _lesson(workshop: Workshop, rung: str, name: str) -> Workshop:
    """A lesson that ends when the rung must."""
    lesson = lesson_of(workshop, rung, name)
    lesson.until = workshop.until
    return lesson


def _train_lesson(workshop: Workshop, rung: str, folder: Path, form: str, lesson: str = "") -> dict[str, Any]:
    """Train, in as many processes as the project's devices are; what was trained goes to `folder`."""
    place = place_of(workshop, rung)
    if place.ranks > 1:
        return train_together(workshop, rung, place, folder, lesson)
    return train_to_end(workshop.job(rung, folder, place), folder / form)


ADDS_UP = ("train_seconds", "load_seconds", "stall_seconds", "learned_tokens", "tokens", "skipped_steps", "disk_bytes")


def added(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """What two trainings took together: peaks are the higher ones, the rest is of the second."""
    both = set(first) & set(then)
    sums = {name: first[name] + then[name] for name in both & set(ADDS_UP)}
    peaks = {name: max(first[name], then[name]) for name in both if name.endswith("_peak_bytes")}
    return first | then | sums | peaks


def _bill(seconds: float, hardware: Any) -> dict[str, float | None]:
    return {
        "watts": hardware.watts,
        "joules": seconds * hardware.watts if hardware.watts else None,
        "usd": seconds / 3600 * hardware.usd_per_hour if hardware.usd_per_hour else None,
    }


def publish(workshop: Workshop, rung: str, out: Path) -> None:
    """Copy what a rung left into the stage's artifact, without what only served to make it."""
    for file in files_below(workshop.made / rung):
        relative = file.relative_to(workshop.made)
        if not UNPUBLISHED & set(relative.parts):
            (out / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, out / relative)
