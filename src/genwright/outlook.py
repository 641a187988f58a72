"""What `genwright plan`, `genwright estimate` and `genwright data show` tell, without spending anything.

A plan runs the stage `scope` into a folder that is thrown away, takes the model only if it is on disk already, and then
asks the very objects that `apply` would use.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

from genwright import stages
from genwright.base.errors import ModelError
from genwright.base.events import Events
from genwright.catalogue.models import config_dict, models
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.data.blank import blank_feed
from genwright.data.layouts import Feed
from genwright.data.look import look
from genwright.data.sources import read_rows
from genwright.engine.columns import blank_columns
from genwright.engine.recipe import Recipe, Rollouts
from genwright.engine.rollouts import blank_round
from genwright.improve.placing import memory_bytes
from genwright.improve.planning import plan_ladder
from genwright.improve.unlearning_plan import plan_unlearning
from genwright.improve.workshop import Workshop
from genwright.models.families import family_of
from genwright.models.load import load_config, load_tokenizer
from genwright.models.sources import cache_folder, cached, locate
from genwright.plan import architectures
from genwright.plan.asked import check_asked, check_context
from genwright.plan.here.rungs import Asking, Machine, Reading, plan_training
from genwright.plan.traced.heads import CLASSES
from genwright.precision.policy import resolve
from genwright.project.apply import Context, decide_project

ANSWERS = 8
"""Of each prompt, where a model learns from a group of its own."""


def plan_project(spec: Any, base: Path) -> dict[str, Any]:
    """{stages, look, rungs, fits, device, notes}: everything is plain JSON."""
    gc.freeze()  # a fifth of a plan's time went into looking for rubbish among what the imports made
    with tempfile.TemporaryDirectory(prefix="genwright-plan-") as name:
        scratch = Path(name)
        told: list[str] = []
        (scratch / "scope").mkdir()
        events = Events(
            scratch / "events.jsonl", (lambda event: told.append(event["text"]) if event["kind"] == "note" else None,)
        )
        scope = stages.scope(Context(spec, {}, scratch / "scope", scratch, events, lambda: False, base))
        plan = {
            "stages": [vars(decision) for decision in decide_project(spec, base)], "scope": scope, "look": None, "rungs": [],
            "fits": True, "device": "this machine", "memory_bytes": memory_bytes(spec), "notes": scope["warnings"],
        }  # fmt: skip
        model = model_on_disk(spec, base)
        if model is None:
            plan["notes"].append(
                "no model of this project is on disk yet, so the rungs cannot be planned: `genwright models pull NAME` fetches one"
            )  # fmt: skip
            return plan
        workshop = Workshop(spec, scope=scratch / "scope", model=model, made=scratch, events=events)
        if workshop.family == "decoder":
            plan["look"] = look(
                workshop.rows("train"), workshop.tokenizer, max_tokens=workshop.max_tokens, capacity=spec.adapt.pack_tokens,
                format=scope["format"],
            ).to_json()  # fmt: skip
        planned = plan_ladder(workshop)
        if spec.unlearn.forget:
            planned["unlearn"] = plan_unlearning(workshop, base)
        plan["rungs"] = [{"name": rung, "planned": estimate.to_json()} for rung, estimate in planned.items()]
        plan["fits"] = all(estimate.quantities["host_bytes"].low <= memory_bytes(spec) for estimate in planned.values())
        plan["notes"] += told
        return plan


def model_on_disk(spec: Any, base: Path) -> Path | None:
    """The folder of the project's first model that needs no fetching, or None."""
    for name in spec.select.models:
        try:
            folder = cached(locate(name, base=base), cache_folder())
        except ModelError:
            continue
        if folder is not None:
            return folder
    return None


def look_at_data(path: Path, *, model: str, base: Path, format: str = "auto", columns: dict[str, str] | None = None,
                 max_tokens: int = 2048, pack_tokens: int = 2048) -> dict[str, Any]:  # fmt: skip
    """One file, before it is burnt: what `plan` shows of the training rows. Errors: DataError, ModelError."""
    dataset = read_rows(path, format=format, columns=columns or {})
    folder = cached(locate(model, base=base), cache_folder())
    if folder is None:
        raise ModelError(f"{model} is not on disk yet.", do=f"genwright models pull {model}")
    return look(
        dataset.rows, load_tokenizer(folder), max_tokens=max_tokens, capacity=pack_tokens, format=dataset.format
    ).to_json()


def estimate_model(
    name: str, *, base: Path, adapter: str = "lora", objective: str = "instruction", rank: int = 0, seq_len: int = 1024,
    batch_size: int = 8, steps: int = 100, precision: str = "auto", watts: float | None = None, usd_per_hour: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Size a method on this machine without a project: `batch_size` rows of `seq_len` tokens a step, one row a microbatch."""
    config = config_of(name, base)
    check_asked(
        {"adapter": adapter, "objective": objective, "rank": rank}, config.to_dict(), steps=steps, rows=batch_size
    )
    check_context(seq_len, config.to_dict())
    made = OBJECTIVES[objective]()
    recipe, feed = _sized(made, ADAPTERS[adapter](**({"rank": rank} if rank and adapter != "full" else {})), config, seq_len=seq_len,
                          batch_size=batch_size, steps=steps, precision=resolve(precision).name)  # fmt: skip
    machine = Machine(cache_folder() / "calibrations", watts, usd_per_hour)
    half = max(2, seq_len // 2)
    writes = made.head in ("language", "value") and family_of(config) != "encoder"
    asking = Asking([half], [half], half) if writes else Asking([], [], 0, Reading(feed, made, recipe.head))
    card = models().get(name)
    weights = (card.parameters if card and card.parameters else 0) * 4
    estimate = plan_training(recipe, config, feed, asking, machine, weights_bytes=weights)
    return {"model": name, "device": "this machine", "recipe": recipe.to_json(), "planned": estimate.to_json()}


def _sized(
    objective: Any, adapter: Any, config: Any, *, seq_len: int, batch_size: int, steps: int, precision: str
) -> tuple[Recipe, Feed]:
    """A recipe and rows for it of a stated length: one row a microbatch, all of a step where its rows are compared."""
    labels = CLASSES if objective.head in ("classes", "tags") else ()
    answers = 1 if objective.head == "value" else ANSWERS
    rollouts = Rollouts(answers, 1, max(1, seq_len // 2), "") if objective.layout == "prompts" else None
    feed = blank_feed(objective, family_of(config), seq_len, batch_size, labels)
    together = sum(row.num_tokens for row in feed.encoded) if objective.couples_rows else seq_len
    recipe = Recipe(
        objective, adapter, precision, steps, batch_size, 1e-4, pack_tokens=together, labels=labels, rollouts=rollouts
    )
    return recipe, blank_round(recipe, feed) if rollouts else blank_columns(recipe, feed, config)


def config_of(name: str, base: Path) -> Any:
    """A model's configuration: from the catalogue by name, else from a folder on disk or in the cache. No weights needed."""
    from transformers import AutoConfig

    if name in models():
        values = config_dict(models()[name])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    if ":" not in name and not (base / name).exists():
        values = architectures.config_of(name)
        return AutoConfig.for_model(values.pop("model_type"), **values)
    folder = cached(locate(name, base=base), cache_folder())
    if folder is None:
        raise ModelError(f"{name} is not on disk yet.", do=f"genwright models pull {name}, or use a catalogue name")
    return load_config(folder)
