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
from genwright.data.layouts import plain_feed
from genwright.data.look import look
from genwright.data.sources import read_rows
from genwright.data.templates import Encoded
from genwright.engine.recipe import Recipe
from genwright.improve.placing import memory_bytes
from genwright.improve.planning import plan_rung
from genwright.improve.workshop import Workshop
from genwright.models.load import load_config, load_tokenizer
from genwright.models.sources import cache_folder, cached, locate
from genwright.plan import architectures
from genwright.plan.asked import check_asked, check_context
from genwright.plan.here.rungs import Asking, Machine, plan_training
from genwright.precision.policy import resolve
from genwright.project.apply import Context, decide_project


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
        planned = {rung: plan_rung(workshop, rung) for rung in workshop.ladder}
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
    parts = {"rank": rank} if rank and adapter != "full" else {}
    recipe = Recipe(
        OBJECTIVES[objective](), ADAPTERS[adapter](**parts), resolve(precision).name, steps, batch_size, 1e-4, pack_tokens=seq_len
    )  # fmt: skip
    rows = [Encoded([1] * seq_len, [False] + [True] * (seq_len - 1), 0, str(row)) for row in range(batch_size)]
    machine = Machine(cache_folder() / "calibrations", watts, usd_per_hour)
    asking = Asking([max(2, seq_len // 2)], [max(2, seq_len // 2)], max(2, seq_len // 2))
    card = models().get(name)
    weights = (card.parameters if card and card.parameters else 0) * 4
    estimate = plan_training(recipe, config, plain_feed(rows), asking, machine, weights_bytes=weights)
    return {"model": name, "device": "this machine", "recipe": recipe.to_json(), "planned": estimate.to_json()}


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
