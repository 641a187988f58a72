"""Genwright's engine on a benchmark task, in a process of its own: the very loop that `genwright apply` consumes.

    python benchmarks/ours.py TASK.json OUT_FOLDER      writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/

The task has the form that every peer gets (see README.md).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from clock import WARMUP, StepClock
from genwright.adapters.lora import LoRA
from genwright.data.layouts import plain_feed
from genwright.data.sources import read_rows
from genwright.data.templates import Encoded, encode_rows
from genwright.engine.build import build
from genwright.engine.loop import train
from genwright.engine.recipe import Recipe
from genwright.models.load import load_model, load_tokenizer
from genwright.objectives.language import Instruction
from genwright.plan.floor import body_of, lora_parts, work_of
from genwright.precision.policy import resolve
from machine import versions


def recipe_of(task: dict[str, Any]) -> Recipe:
    """The task as a recipe; what it does not name is the product's default."""
    lora = task["lora"]
    return Recipe(
        objective=Instruction(),
        adapter=LoRA(rank=lora["rank"], alpha=lora["alpha"], dropout=lora["dropout"], targets=(lora["targets"],)),
        precision=resolve(task.get("precision", "auto")).name,
        steps=task["steps"],
        batch_size=task["rows_per_step"],
        learning_rate=task["learning_rate"],
        schedule=task["schedule"],
        warmup_fraction=0.0,
        weight_decay=task["weight_decay"],
        max_norm=task["max_norm"],
        seed=task["seed"],
    )


def run(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train, save the adapter, return what was measured and with what."""
    folder = Path(task["model"])
    tokenizer = load_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    rows = read_rows(Path(task["rows"])).rows
    encoded = encode_rows(rows, tokenizer, max_tokens=config["max_position_embeddings"])
    recipe = recipe_of(task)
    built = build(recipe, lambda dtype, attention: load_model(folder, dtype=dtype, attention=attention))
    clock, steps = StepClock(), []
    for step in train(built, recipe, plain_feed(encoded, tokenizer.pad_token_id)):
        clock.tick()
        steps.append(step)
    if [list(step.rows) for step in steps] != task["order"]:
        raise SystemExit("the engine took other rows than the task's order: the peers would train on another sequence")
    recipe.adapter.save(built.model, out / "adapter")
    tokens = [step.tokens for step in steps]
    return {
        **clock.measured([step.learned_tokens for step in steps], tokens, tokens),
        "floor_flops": floor(config, task, steps, encoded),
        "trained_parameters": sum(parameter.numel() for parameter in built.parameters.values()),
        "train_loss": [round(step.loss, 4) for step in steps],
        "skipped_steps": sum(step.skipped for step in steps),
        "settings": recipe.to_json(),
        "versions": versions(),
    }


def floor(config: dict[str, Any], task: dict[str, Any], steps: list[Any], encoded: list[Encoded]) -> dict[str, float]:
    """The FLOPs that the timed steps could not do without: of each row, what stands up to its last learned token."""
    timed = steps[WARMUP:]
    needed = [max(place for place, learned in enumerate(row.learned) if learned) + 1 for row in encoded]
    lengths = [needed[row] for step in timed for row in step.rows]
    learned = sum(step.learned_tokens for step in timed)
    return lora_parts(body_of(config), work_of(lengths, learned), task["lora"]["rank"])


def main() -> None:
    """Read the task, train, write run.json."""
    task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(run(task, out), indent=1))


if __name__ == "__main__":
    main()
