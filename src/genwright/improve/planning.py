"""What a rung will need on this machine, where it will train, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genwright.base.errors import DoesNotFit
from genwright.base.files import free_bytes
from genwright.base.units import Bytes
from genwright.catalogue.parts import RUNGS
from genwright.data.layouts import Feed, feed_of
from genwright.engine.columns import blank_columns
from genwright.engine.rollouts import blank_round
from genwright.improve.lessons import aligning, answered_rows, assumed_pairs, reading, refuse_unwritten
from genwright.improve.placing import AUTO, memory_bytes, placement_of
from genwright.improve.searching import candidates, lora_work, prompt_work, with_search
from genwright.improve.workshop import Workshop, reference
from genwright.models.sources import cache_folder
from genwright.parallel.mesh import Placement
from genwright.plan.estimate import Estimate, Range, around, bill
from genwright.plan.here.rungs import (
    FILE_HEADERS,
    Asking,
    Machine,
    Reading,
    in_order,
    loading_bytes,
    plan_prompting,
    plan_training,
)
from genwright.plan.here.shapes import together


def plan_ladder(workshop: Workshop) -> dict[str, Estimate]:
    """Every rung of the ladder, as one process climbs them. Errors: as of `plan_rung`."""
    return in_order({rung: plan_rung(workshop, rung) for rung in workshop.ladder}, _machine(workshop).kernels())


def plan_rung(workshop: Workshop, rung: str) -> Estimate:
    """The plan of a rung, with what it searches first. Errors: RecipeError, DataError where it cannot be climbed at all."""
    made = RUNGS[rung](workshop.spec, rung)
    if made.first:
        return _plan_reading(workshop, rung) if made.first == "reading" else _plan_aligning(workshop, rung)
    search, planned = made.search, _plan_once(workshop, rung)
    if search == "prompt":
        return with_search(planned, "evaluate_seconds", prompt_work(workshop, rung), workshop.spec.hardware)
    if search == "lora":
        return with_search(planned, "train_seconds", lora_work(workshop.recipe(rung)), workshop.spec.hardware)
    return planned


def _plan_once(workshop: Workshop, rung: str) -> Estimate:
    if workshop.trains(rung):
        return plan_at(workshop, rung, place_of(workshop, rung))
    return _plan_asking(workshop, asking_of(workshop, rung))


def _plan_reading(workshop: Workshop, rung: str) -> Estimate:
    lesson = reading(workshop, rung)
    return in_turn(
        plan_at(lesson, rung, place_of(lesson, rung)), plan_at(workshop, rung, place_of(workshop, rung)),
        {}, workshop.spec.hardware,
    )  # fmt: skip


def _plan_aligning(workshop: Workshop, rung: str) -> Estimate:
    """Answering training rows once, or twice where the first answer is right; aligning; and the two models on the disk."""
    refuse_unwritten(workshop)
    lesson = aligning(workshop, rung, assumed_pairs(workshop, rung))
    answered = workshop.learning({"validation": list(answered_rows(workshop))})
    finding = _plan_asking(answered, asking_of(answered, "zero-shot"))
    planned = plan_at(lesson, rung, place_of(lesson, rung), asking_of(workshop, rung))
    model = loading_bytes(workshop.config, torch.float32, 0)
    seconds = finding.quantities["seconds"]
    more = {
        "train_seconds": Range(seconds.value, seconds.low, 2 * seconds.high),
        "disk_bytes": around(2 * model, 0.5, FILE_HEADERS),
    }
    return in_turn(finding, planned, more, workshop.spec.hardware)


def in_turn(first: Estimate, then: Estimate, more: Mapping[str, Range], hardware: Any) -> Estimate:
    """One plan of two trainings, or of whatever comes first: peaks are the higher ones, time and disk add up.

    `more` says what of `first` adds up, where it is not its own "train_seconds" and "disk_bytes".
    """
    added = {name: more.get(name) or first.quantities[name] for name in ("train_seconds", "disk_bytes")}
    quantities = dict(then.quantities)
    for name, own in first.quantities.items():
        if name.endswith("_peak_bytes") or name == "host_bytes":
            quantities[name] = max(own, quantities.get(name, own), key=lambda peak: peak.value)
    quantities |= {name: quantities[name] + value for name, value in added.items()}
    quantities["seconds"] = quantities["seconds"] + added["train_seconds"]
    known, unknown = bill(quantities["seconds"], watts=hardware.watts, usd_per_hour=hardware.usd_per_hour)
    compiled = {name: together(first.compiled.get(name, {}), left) for name, left in then.compiled.items()}
    return replace(then, quantities={**quantities, **known}, unknown={**then.unknown, **unknown}, compiled=compiled)


def plan_answers(workshop: Workshop) -> Estimate:
    """What answering the validation rows will need, with examples in the prompt or by reading, before anything is trained."""
    reads = workshop.reads or workshop.family == "encoder"
    asking = Asking([], [], 0, reading_of(workshop)) if reads else asking_of(workshop, "few-shot")
    return _plan_asking(workshop, asking)


def _plan_asking(workshop: Workshop, asking: Asking) -> Estimate:
    return plan_prompting(
        workshop.config, asking, _machine(workshop), precision=workshop.spec.adapt.precision,
        weights_bytes=weights_bytes(workshop.model), say=workshop.say,
    )  # fmt: skip


def plan_at(workshop: Workshop, rung: str, place: Placement, asking: Asking | None = None) -> Estimate:
    """The plan of a rung that trains, laid over these devices, and judged by its validation rows, or by what is asked."""
    return plan_training(
        workshop.recipe(rung), workshop.config, _planned_feed(workshop, rung), asking or asking_of(workshop, rung), _machine(workshop),
        weights_bytes=weights_bytes(workshop.model), say=workshop.say, place=place,
    )  # fmt: skip


def place_of(workshop: Workshop, rung: str) -> Placement:
    """Where a rung trains; "auto" is the first strategy whose plan fits. Errors: RecipeError."""
    hardware = workshop.spec.hardware
    if hardware.strategy != "auto" or hardware.count == 1 or hardware.tensor_degree > 1:
        return placement_of(workshop.spec)
    places = [placement_of(workshop.spec, strategy) for strategy in AUTO]
    room = memory_bytes(workshop.spec)
    fits = lambda place: plan_at(workshop, rung, place).quantities["host_bytes"].value <= room
    return next((place for place in places[:-1] if fits(place)), places[-1])


def weights_bytes(model: Path) -> int:
    """Of a model's files."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def _machine(workshop: Workshop) -> Machine:
    hardware, failing = workshop.spec.hardware, workshop.spec.adapt.mtbf_hours * 3600
    return Machine(cache_folder() / "calibrations", hardware.watts, hardware.usd_per_hour, mtbf_seconds=failing)


def _planned_feed(workshop: Workshop, rung: str) -> Feed:
    """The training rows, with columns and answers that say nothing but have the right shapes."""
    recipe, feed = workshop.recipe(rung), workshop.feeds["train"]
    if recipe.rollouts:
        return blank_round(recipe, feed)
    return blank_columns(recipe, feed, workshop.config, ranks=workshop.spec.hardware.count)


def asking_of(workshop: Workshop, rung: str) -> Asking:
    """The generation, or the reading, that judges a rung."""
    if _only_read(workshop, rung):
        return Asking([], [], 0, reading_of(workshop))
    made = RUNGS[rung](workshop.spec, rung)
    searched = made.search == "prompt"
    shown = max(prompt.examples for prompt in candidates(workshop, rung)) if searched else made.examples
    written = lambda row: len(workshop.tokenizer(reference(row), add_special_tokens=False).input_ids)
    answers = [written(row) for row in workshop.judged_on]
    lengths, written_at_most = workshop.prompt_lengths(shown), workshop.spec.adapt.max_new_tokens
    if shown and workshop.family == "decoder":  # examples that leave no room for an answer are not shown
        lengths = [min(length, max(1, workshop.context - written_at_most)) for length in lengths]
    return Asking(lengths, answers, written_at_most)


def _only_read(workshop: Workshop, rung: str) -> bool:
    """Whether a rung answers without writing: by a class, by tags, or by its surprise."""
    if any(not row.conversation for row in workshop.judged_on):
        return True
    return workshop.reads or (workshop.trains(rung) and workshop.head.kind in ("classes", "tags"))


def reading_of(workshop: Workshop) -> Reading:
    """The validation rows as they are read to judge a rung."""
    feed = feed_of(workshop.judged_on, workshop.setting, workshop.pad_id)
    return Reading(feed, workshop.setting.objective, workshop.head)


def refuse_what_does_not_fit(workshop: Workshop, rung: str, planned: Estimate) -> None:
    """Errors: DoesNotFit with the breakdown; DiskFull's cause said before it happens."""
    host, disk, room = (
        planned.quantities["host_bytes"],
        planned.quantities.get("disk_bytes"),
        memory_bytes(workshop.spec),
    )
    if host.low > room:
        largest = sorted(planned.breakdown.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{part} {Bytes(size)}" for part, size in largest)
        raise DoesNotFit(
            f"{rung} needs {Bytes(host.value)} of memory ({parts}).", found=f"this machine has {Bytes(room)}",
            do="lower adapt.batch_size, adapt.pack_tokens or adapt.max_tokens, or choose a smaller model",
        )  # fmt: skip
    free = free_bytes(workshop.made)
    if disk is not None and disk.value > free:
        raise DoesNotFit(
            f"{rung} needs {Bytes(disk.value)} of disk.", found=f"{Bytes(free)} free",
            do="free some space (`genwright clean` lists what can go)",
        )  # fmt: skip
