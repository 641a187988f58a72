"""What saving costs the one who trains: the demo's LoRA and a full run of a small model, with and without checkpoints.

    python benchmarks/checkpoint.py            writes benchmarks/results/checkpoint.json

Both ways are measured in turn, in one process, several rounds, so that a change of the machine's speed hits both. With
checkpoints, one is saved every SAVE_EVERY_SECONDS: several times as often as a project does, so that there is something to
measure. The stall is what the training thread waited, as a share of the wall time; `slowdown` is that of the steps meanwhile,
with the other thread writing and hashing beside them. `project` is the stall at the interval a project would choose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from finetune import demo_rows, model_folder, write_rows
from genwright.adapters.full import Full
from genwright.adapters.lora import LoRA
from genwright.data.layouts import Feed, plain_feed
from genwright.data.sources import read_rows
from genwright.data.templates import encode_rows
from genwright.engine.build import build
from genwright.engine.loop import train
from genwright.engine.recipe import Recipe
from genwright.engine.saving import Saver
from genwright.models.load import load_model, load_tokenizer
from genwright.objectives.language import Instruction
from genwright.plan.cadence import interval_seconds
from machine import write_result

RESULTS = Path(__file__).parent / "results" / "checkpoint.json"
SAVE_EVERY_SECONDS = 10.0
RUNS = {"lora": LoRA(), "full": Full()}


def recipe_of(method: str, steps: int) -> Recipe:
    return Recipe(Instruction(), RUNS[method], "bf16", steps, batch_size=8, learning_rate=1e-5)


def feed_of(rows: list[dict[str, str]], model: Path) -> Feed:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "train.jsonl", rows)
        dataset = read_rows(Path(folder) / "train.jsonl")
    return plain_feed(encode_rows(dataset.rows, load_tokenizer(model), max_tokens=2048))


def one_run(method: str, model: Path, feed: Feed, steps: int, root: Path | None) -> dict[str, Any]:
    """Train so many steps; with a root, save as often as said. The first step, which compiles, is not counted."""
    recipe = recipe_of(method, steps)
    built = build(recipe, lambda dtype, attention: load_model(model, dtype=dtype, attention=attention))
    stalls, writes, began, last = [], [], 0.0, 0.0
    with Saver(root or Path(tempfile.gettempdir()) / "never", recipe="benchmark") as saver:
        for done in train(built, recipe, feed):
            now = time.perf_counter()
            if done.step == 1:
                began = last = now
            elif root is not None and now - last >= SAVE_EVERY_SECONDS:
                stalls.append(saver.save(built, step=done.step, state={}))
                last = time.perf_counter()
            writes += [saved.write_seconds for saved in saver.finished()]
        seconds = time.perf_counter() - began
        writes += [saved.write_seconds for saved in saver.wait()]
    size = sum(one.numel() * one.element_size() for one in built.parameters.values()) * 3
    return {"seconds": seconds, "steps": steps - 1, "stalls": stalls, "writes": writes, "bytes": size}


def summary(plain: list[dict[str, Any]], saving: list[dict[str, Any]]) -> dict[str, Any]:
    stalls = [stall for run in saving for stall in run["stalls"]]
    writes = [write for run in saving for write in run["writes"]]
    share = sum(stalls) / sum(run["seconds"] for run in saving)
    cost = statistics.median(stalls) + statistics.median(writes)
    interval = interval_seconds(cost)
    steps = lambda run: (run["seconds"] - sum(run["stalls"])) / run["steps"]
    return {
        "checkpoint_bytes": saving[0]["bytes"], "saves": len(stalls), "stall_seconds": statistics.median(stalls),
        "stall_seconds_worst": max(stalls), "write_seconds": statistics.median(writes), "stall_share_of_wall_time": share,
        "slowdown_of_steps": statistics.median(map(steps, saving)) / statistics.median(map(steps, plain)),
        "project": {"interval_seconds": interval, "stall_share_of_wall_time": statistics.median(stalls) / interval},
        "step_seconds": {"plain": [steps(run) for run in plain], "saving": [steps(run) for run in saving]},
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=Path, help="JSON lines with messages (default: the demo's)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    model = model_folder(options.model)
    feed = feed_of(demo_rows(options.rows), model)
    found: dict[str, Any] = {}
    for method in RUNS:
        plain, saving = [], []
        for _ in range(options.rounds):
            plain.append(one_run(method, model, feed, options.steps, None))
            with tempfile.TemporaryDirectory() as root:
                saving.append(one_run(method, model, feed, options.steps, Path(root)))
        found[method] = summary(plain, saving)
        print(method, json.dumps(found[method], indent=1), flush=True)
    about = {
        "model": options.model,
        "threads": torch.get_num_threads(),
    }
    settings = {"save_every_seconds": SAVE_EVERY_SECONDS, "steps": options.steps, "rounds": options.rounds}
    write_result(options.out, **about, **settings, measured=found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
