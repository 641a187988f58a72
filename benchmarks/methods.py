"""Full fine-tuning, prompt tuning and DPO against TRL: the same model, rows, order and steps, in turn, each in a process of its own.

    python benchmarks/methods.py [--methods full,prompt-tuning,dpo] [--steps 6] [--repeats 2]

What is compared is learned tokens a second after the first step (`clock.py`). For DPO our reference log-probabilities are
made before the first step, and their seconds are shared out over one epoch's steps and counted. DPO's rejected answer is another row's.
Writes results/methods.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import machine
from clock import WARMUP, StepClock
from finetune import HERE, demo_rows, is_held_out, model_folder, python_of, say, task_of, write_rows

PRECISION = "bf16-autocast"
"""TRL's fastest on this machine for LoRA (`finetune.py` tries them); one for all, so that a run stays short."""


def ours(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Our engine on a method, as `genwright apply` drives it."""
    from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
    from genwright.data.layouts import Setting, feed_of
    from genwright.data.sources import read_rows
    from genwright.engine.build import build
    from genwright.engine.columns import with_columns
    from genwright.engine.loop import train
    from genwright.engine.recipe import Recipe
    from genwright.models.load import load_model, load_tokenizer
    from genwright.precision.policy import resolve

    objective = OBJECTIVES["dpo"](beta=task["beta"]) if task["method"] == "dpo" else OBJECTIVES["instruction"]()
    adapters = {
        "full": ("full", {}),
        "prompt-tuning": ("prompt-tuning", {"tokens": task["virtual_tokens"]}),
        "dpo": ("lora", {"rank": 16}),
    }
    name, options = adapters[task["method"]]
    recipe = Recipe(
        objective, ADAPTERS[name](**options), resolve("auto").name, task["steps"], task["rows_per_step"], task["learning_rate"],
        warmup_fraction=0.0, seed=task["seed"],
    )  # fmt: skip
    tokenizer = load_tokenizer(Path(task["model"]))
    rows = read_rows(Path(task["rows"])).rows
    feed = feed_of(rows, Setting(objective, tokenizer, "decoder", 2048), int(tokenizer.pad_token_id or 0))
    built = build(recipe, lambda dtype, attention: load_model(Path(task["model"]), dtype=dtype, attention=attention))
    began = time.perf_counter()
    feed = with_columns(recipe, built, feed, lambda: None)
    columns = (time.perf_counter() - began) / max(1, len(rows) / task["rows_per_step"])
    clock, steps = StepClock(), []
    for step in train(built, recipe, feed):
        clock.tick()
        steps.append(step)
    tokens = [step.tokens for step in steps]
    told = clock.measured([step.learned_tokens for step in steps], tokens, tokens)
    seconds = told["seconds"] + columns * (len(steps) - WARMUP)
    return told | {
        "columns_seconds_a_step": columns, "learned_tokens_per_second": told["learned_tokens"] / seconds,
        "trained_parameters": sum(one.numel() for one in built.parameters.values()), "train_loss": [step.loss for step in steps],
    }  # fmt: skip


def task_for(method: str, work: Path, steps: int, rows: list[dict[str, str]], seed: int) -> dict[str, Any]:
    """The task of a method, its rows written."""
    options = Namespace(model=model_folder("smollm2-135m-instruct"), rows_per_step=8, learning_rate=1e-4)
    task = task_of(options, work, num_rows=len(rows), steps=steps, seed=seed)
    if method == "dpo":
        others = [*rows[1:], rows[0]]
        pairs = [
            {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
            for row, other in zip(rows, others)
        ]
        task["rows"] = str(work / "pairs.jsonl")
        Path(task["rows"]).write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return task | {"method": method, "virtual_tokens": 20, "beta": 0.1, "peer": {"precision": PRECISION}}


def run(side: str, task: dict[str, Any], out: Path) -> dict[str, Any]:
    """One side in its own process and environment."""
    from finetune import PEERS

    out.mkdir(parents=True)
    (out / "task.json").write_text(json.dumps(task))
    script = [str(HERE / "methods.py"), "--ours"] if side == "ours" else [str(HERE / "peers" / "trl" / "methods.py")]
    python = sys.executable if side == "ours" else str(python_of(PEERS["trl"]))
    done = subprocess.run([python, *script, str(out / "task.json"), str(out)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return {**json.loads((out / "run.json").read_text()), "load": round(os.getloadavg()[0], 2)}


def main() -> None:
    """Measure in turn, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="full,prompt-tuning,dpo")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64, help="of the demo's; the reference is asked of each")
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("TASK", "OUT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ours:
        task, out = json.loads(chosen.ours[0].read_text()), chosen.ours[1]
        (out / "run.json").write_text(json.dumps(ours(task, out), indent=1))
        return
    rows = [row for row in demo_rows(None) if not is_held_out(row)][: chosen.rows]
    found: dict[str, Any] = {}
    for method in chosen.methods.split(","):
        with tempfile.TemporaryDirectory(prefix="genwright-methods-") as name:
            work = Path(name)
            write_rows(work / "train.jsonl", rows)
            task = task_for(method, work, chosen.steps, rows, seed=0)
            runs = [
                {side: run(side, task, work / f"{number}-{side}") for side in ("ours", "trl")}
                for number in range(chosen.repeats)
            ]
        ratios = [pair["ours"]["learned_tokens_per_second"] / pair["trl"]["learned_tokens_per_second"] for pair in runs]
        found[method] = {"ratio": statistics.median(ratios), "ratios": ratios, "runs": runs}
        say(f"{method}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times TRL's learned tokens a second")
    machine.write_result(HERE / "results" / "methods.json", methods=found)


if __name__ == "__main__":
    main()
