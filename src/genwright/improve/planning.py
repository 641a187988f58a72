"""What a rung will need on this machine, where it will train, and whether there is room for it."""

from __future__ import annotations

from pathlib import Path

from genwright.base.errors import DoesNotFit
from genwright.base.files import free_bytes
from genwright.base.units import Bytes
from genwright.catalogue.parts import RUNGS
from genwright.data.layouts import Feed, feed_of
from genwright.engine.columns import blank_columns
from genwright.engine.rollouts import blank_round
from genwright.improve.placing import AUTO, memory_bytes, placement_of
from genwright.improve.searching import candidates, lora_work, prompt_work, with_search
from genwright.improve.workshop import Workshop, reference
from genwright.models.sources import cache_folder
from genwright.parallel.mesh import Placement
from genwright.plan.estimate import Estimate
from genwright.plan.rungs import Asking, Machine, Reading, plan_prompting, plan_training


def plan_rung(workshop: Workshop, rung: str) -> Estimate:
    """The plan of a rung, with what it searches first. Errors: RecipeError, DataError where it cannot be climbed at all."""
    search, planned = RUNGS[rung](workshop.spec, rung).search, _plan_once(workshop, rung)
    if search == "prompt":
        return with_search(planned, "evaluate_seconds", prompt_work(workshop, rung), workshop.spec.hardware)
    if search == "lora":
        return with_search(planned, "train_seconds", lora_work(workshop.recipe(rung)), workshop.spec.hardware)
    return planned


def _plan_once(workshop: Workshop, rung: str) -> Estimate:
    if workshop.trains(rung):
        return plan_at(workshop, rung, place_of(workshop, rung))
    return _plan_asking(workshop, asking_of(workshop, rung))


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


def plan_at(workshop: Workshop, rung: str, place: Placement) -> Estimate:
    """The plan of a rung that trains, laid over these devices."""
    return plan_training(
        workshop.recipe(rung), workshop.config, _planned_feed(workshop, rung), asking_of(workshop, rung), _machine(workshop),
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
    hardware = workshop.spec.hardware
    return Machine(cache_folder() / "calibrations", hardware.watts, hardware.usd_per_hour)


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
    return Asking(workshop.prompt_lengths(shown), answers, workshop.spec.adapt.max_new_tokens)


def _only_read(workshop: Workshop, rung: str) -> bool:
    """Whether a rung answers without writing: by a class, by tags, or by its surprise."""
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
