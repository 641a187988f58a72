"""Training on one CUDA device: share of the device's own matmul rate, memory and time, for random weights of a known shape.

    python benchmarks/gpu_train.py --model llama-3.2-1b-instruct [--adapter lora] [--tokens 4096] [--steps 8]

The model is built from the catalogue's configuration, so nothing is downloaded. FLOPs are counted on the step itself. The
matmul rate is that of bf16 squares, measured in the same minute. `--device cpu` runs the same code where there is no GPU: it
proves the script, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from genwright.catalogue.models import config_dict, model
from genwright.catalogue.parts import ADAPTERS
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import Built, build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.load import build_model
from genwright.objectives.language import Causal
from genwright.parallel.mesh import Placement
from genwright.parallel.norm import global_norm
from machine import stamped

OUT = Path(__file__).parent / "results" / "gpu_train.json"


def random_model(values: dict[str, Any]) -> Any:
    """A loader of random weights of this shape."""

    def load(dtype: torch.dtype, attention: str) -> Any:
        made = build_model(AutoConfig.for_model(**values), dtype, attention)
        for parameter in made.parameters():
            scatter_(parameter)
        return made

    return load


@torch.no_grad()
def scatter_(weight: torch.Tensor, drawn: int = 2**20) -> None:
    """Normal numbers of deviation 0.02: so many are drawn and repeated, since drawing eight billion takes minutes."""
    flat = weight.view(-1)
    for start in range(0, flat.numel(), drawn):
        part = flat[start : start + drawn]
        part.copy_(_block(drawn)[: part.numel()])


@cache
def _block(drawn: int) -> torch.Tensor:
    return torch.randn(drawn) * 0.02


def matmul_rate(device: str, side: int, seconds: float = 1.0) -> float:
    """Best FLOP/s of a bf16 square product."""
    x, y = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        took = timed(lambda: [x @ y for _ in range(4)], device)
        best = max(best, 4 * 2 * side**3 / took)
    return best


def timed(work: Any, device: str) -> float:
    """Seconds until the device is done with it."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def step_of(built: Built, recipe: Recipe, feed: Any) -> Any:
    """One optimiser step, as a call."""
    batches = microbatches_of_step(recipe, feed, 0)[1]
    return lambda: train_step(
        built.model,
        built.optimizer,
        built.objective,
        built.team.share(built.model, batches),
        max_norm=1.0,
        global_norm=global_norm,
    )


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.2-1b-instruct")
    parser.add_argument("--adapter", default="lora", choices=list(ADAPTERS))
    parser.add_argument("--tokens", type=int, default=4096, help="of one packed microbatch")
    parser.add_argument("--row", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers than the model has")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    chosen = parser.parse_args()
    values = config_dict(model(chosen.model))
    if chosen.layers:
        values |= {"num_hidden_layers": chosen.layers}
    recipe = Recipe(
        Causal(),
        ADAPTERS[chosen.adapter](),
        "bf16",
        chosen.steps,
        chosen.tokens // chosen.row,
        1e-4,
        pack_tokens=chosen.tokens,
    )
    built = build(recipe, random_model(values), Placement(device=chosen.device))
    ids = torch.randint(0, values["vocab_size"], (chosen.row,)).tolist()
    rows = [Encoded(ids, [False] + [True] * (chosen.row - 1), 0, str(row)) for row in range(recipe.batch_size)]
    feed = plain_feed(rows)
    step = step_of(built, recipe, type(feed)(feed.encoded, feed.layout, feed.pad_id, device=chosen.device))
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = sorted(timed(step, chosen.device) for _ in range(chosen.steps))
    rate = matmul_rate(chosen.device, 8192 if chosen.device == "cuda" else 1024)
    median = seconds[len(seconds) // 2]
    result = {
        "device": torch.cuda.get_device_name() if chosen.device == "cuda" else "cpu",
        "asked": vars(chosen), "flops_per_step": counter.get_total_flops(), "step_seconds": seconds, "matmul_flops_per_second": rate,
        "utilisation": counter.get_total_flops() / median / rate, "tokens_per_second": chosen.tokens / median,
        "allocated_bytes": torch.cuda.max_memory_allocated() if chosen.device == "cuda" else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if chosen.device == "cuda" else None,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if chosen.device == "cuda":
        kept = json.loads(OUT.read_text()) if OUT.exists() else []
        folder = Path(os.environ.get("OUT", OUT.parent))
        (folder / OUT.name).write_text(json.dumps([*kept, stamped(**result)], indent=1) + "\n")


if __name__ == "__main__":
    main()
