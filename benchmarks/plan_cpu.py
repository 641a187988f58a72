"""The plan's time on this machine against real steps: tiny and medium models, full and LoRA, each planned, then run.

    python benchmarks/plan_cpu.py [--steps 5] [--only 0,3] [--smoke]

Two predictions stand beside each measurement: `plan`, each traced operation measured alone at its own shape, which is what
`genwright plan` does, and `estimate`, the trace priced by a minute's curves (`genwright calibrate`). A machine that does
other work meanwhile makes both worse: the load is in the file. Results: benchmarks/results/plan_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from genwright.catalogue.device_names import Placed
from genwright.catalogue.devices import devices
from genwright.catalogue.parts import ADAPTERS
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.objectives.language import Causal
from genwright.plan.here.calibrate import calibrate
from genwright.plan.here.trace import build_fake, trace_step
from genwright.plan.priced.measure import measure
from genwright.plan.priced.roofline import price
from genwright.plan.priced.step_time import step_time
from genwright.plan.traced.setup import Setup
from genwright.plan.training import trace_training
from gpu_train import random_model, step_of, timed
from machine import write_result

OUT = Path(__file__).parent / "results" / "plan_cpu.json"


@dataclass(frozen=True)
class Case:
    """One recipe: a llama of these sizes, rows of `row` tokens."""

    width: int
    layers: int
    adapter: str
    row: int
    rows: int
    vocabulary: int = 8192

    @property
    def values(self) -> dict[str, Any]:
        """Its config."""
        heads = self.width // 64
        shared = next(number for number in range(max(1, heads // 3), 0, -1) if heads % number == 0)
        return {
            "model_type": "llama", "hidden_size": self.width, "num_hidden_layers": self.layers,
            "intermediate_size": self.width * 8 // 3 // 32 * 32,
            "num_attention_heads": heads, "num_key_value_heads": shared, "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048, "tie_word_embeddings": True,
        }  # fmt: skip


CASES = [
    Case(192, 4, "full", 128, 8), Case(192, 8, "lora", 256, 4), Case(384, 6, "full", 256, 4), Case(384, 12, "lora", 128, 8),
    Case(576, 8, "full", 256, 4), Case(576, 16, "lora", 512, 2), Case(768, 8, "full", 512, 2), Case(768, 12, "lora", 256, 4, 32768),
    Case(1024, 6, "full", 256, 4), Case(1024, 8, "lora", 1024, 2),
]  # fmt: skip
SMOKE = [Case(64, 2, "lora", 32, 2, 256)]


def recipe_of(case: Case) -> Recipe:
    """As `apply` would take it, in bf16."""
    return Recipe(Causal(), ADAPTERS[case.adapter](), "bf16", 4, case.rows, 1e-4, pack_tokens=case.row * case.rows)


def feed_of(case: Case) -> Any:
    """Rows of random tokens, all learned but the first."""
    torch.manual_seed(0)
    ids = torch.randint(0, case.vocabulary, (case.row,)).tolist()
    return plain_feed([Encoded(ids, [False] + [True] * (case.row - 1), 0, str(row)) for row in range(case.rows)])


def run_case(case: Case, steps: int, folder: Path, curves: Any) -> dict[str, Any]:
    """Plan, then measure; seconds."""
    recipe, feed = recipe_of(case), feed_of(case)
    values = dict(case.values)
    fake = build_fake(recipe, AutoConfig.for_model(**values))
    trace = trace_step(fake, lambda: microbatches_of_step(recipe, feed, 0)[1], recipe)
    planned = price(trace.events, calibrate([fake.tracker], folder))
    setup = Setup(
        model=case.values,
        adapter=case.adapter,
        seq_len=case.row,
        micro_batch=case.rows,
        precision="bf16",
        framework="genwright",
    )
    threads = min(torch.get_num_threads(), 64)
    traced, setup, _ = trace_training(setup)
    estimated = step_time(
        traced, Placed(devices().get(f"cpu-{threads}", devices()["cpu-2"])), setup, speeds=curves.speeds()
    ).total
    step = step_of(build(recipe, random_model(case.values)), recipe, feed)
    step()
    seconds = [timed(step, "cpu") for _ in range(steps)]
    real = statistics.median(sorted(seconds)[: (steps + 1) // 2])  # as the calibration takes its own
    return {
        "case": vars(case), "measured_seconds": seconds, "plan_seconds": planned, "estimate_seconds": estimated,
        "plan_error": planned / real - 1, "estimate_error": estimated / real - 1,
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median and 90th percentile of absolute errors."""
    found = {}
    for name in ("plan_error", "estimate_error"):
        errors = sorted(abs(row[name]) for row in rows)
        found[name] = {"median": statistics.median(errors), "p90": errors[min(len(errors) - 1, int(0.9 * len(errors)))]}
    return found


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", default="", help="numbers of cases, 0,3,...")
    parser.add_argument("--smoke", action="store_true", help="one model too small to mean anything; keeps nothing")
    chosen = parser.parse_args()
    cases = SMOKE if chosen.smoke else [CASES[int(n)] for n in chosen.only.split(",")] if chosen.only else CASES
    with tempfile.TemporaryDirectory() as folder:
        curves = measure("cpu", seconds=2 if chosen.smoke else 60)["calibration"]
        rows = []
        for case in cases:
            rows.append(run_case(case, chosen.steps, Path(folder), curves))
            print(json.dumps({name: rows[-1][name] for name in ("case", "plan_error", "estimate_error")}), flush=True)
    print(json.dumps(summary(rows), indent=1))
    if not chosen.smoke and not chosen.only:
        write_result(OUT, summary=summary(rows), rows=rows)


if __name__ == "__main__":
    main()
