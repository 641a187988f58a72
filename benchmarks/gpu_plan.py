"""The plan against a GPU: memory as torch and the driver count it, step time and NVML's energy, for at least twelve recipes.

    python benchmarks/gpu_plan.py [--only 0,3] [--steps 6] [--seconds 45] [--device cuda|cpu] [--src src]

Models have random weights of the catalogue's shapes, so nothing is downloaded. Each recipe runs in a process of its own, since
a context and a caching allocator are never given back. Predicted: active, reserved and device bytes, step seconds from the
data sheet and from a calibration made in the same session, joules. Measured: `max_memory_allocated`, `max_memory_reserved`,
the driver's used bytes less what was used before, the median of the steps, the energy counter's difference. Rows are written one
by one, beside those of other recipes that benchmarks/results has: `--only` in several commands, the results copied there
between them, makes one file. `--device cpu`
runs every recipe with a tiny model through the same code: it proves the script, and its figures mean nothing. Needs torch 2.11,
transformers 5.10 and peft; no web package is imported. Results: benchmarks/results/gpu_plan.json.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "results" / "gpu_plan.json"

RECIPES: list[dict[str, Any]] = [
    {"model": "gpt2", "adapter": "full", "row": 1024, "rows": 4},
    {"model": "smollm2-135m-instruct", "adapter": "full", "row": 1024, "rows": 4},
    {"model": "smollm2-135m-instruct", "adapter": "lora", "row": 4096, "rows": 2},
    {"model": "qwen2.5-0.5b-instruct", "adapter": "full", "row": 1024, "rows": 4},
    {"model": "qwen2.5-0.5b-instruct", "adapter": "full", "row": 4096, "rows": 2, "recompute": "full"},
    {"model": "llama-3.2-1b-instruct", "adapter": "full", "row": 1024, "rows": 4},
    {"model": "llama-3.2-1b-instruct", "adapter": "full", "row": 4096, "rows": 2, "recompute": "full"},
    {"model": "llama-3.2-1b-instruct", "adapter": "lora", "row": 4096, "rows": 2},
    {"model": "llama-3.2-3b-instruct", "adapter": "lora", "row": 1024, "rows": 4},
    {"model": "llama-3.2-3b-instruct", "adapter": "lora", "row": 4096, "rows": 1, "recompute": "full"},
    {"model": "llama-3.2-3b-instruct", "adapter": "lora", "base": "int4", "row": 1024, "rows": 4},
    {"model": "llama-3.1-8b-instruct", "adapter": "lora", "row": 1024, "rows": 4},
    {"model": "llama-3.1-8b-instruct", "adapter": "lora", "row": 4096, "rows": 1, "recompute": "full"},
    {"model": "llama-3.1-8b-instruct", "adapter": "lora", "base": "int4", "row": 1024, "rows": 4, "recompute": "full"},
]
TINY = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 512},
    "": {
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "head_dim": 16, "vocab_size": 512,
    },
}  # fmt: skip
"""Sizes of a model of each kind that a CPU trains at once; "" is every kind not named."""


CALIBRATE = """
import sys
sys.path.insert(0, {src!r})
from pathlib import Path
from genwright.plan.priced.measure import measure
measure("cuda", folder=Path({folder!r}), seconds={seconds})
"""


def values_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The model's config, with small sizes where asked."""
    from genwright.catalogue.models import config_dict, model

    values = config_dict(model(asked["model"]))
    return values | (TINY.get(values["model_type"], TINY[""]) if asked.get("tiny") else {})


def predicted(asked: dict[str, Any], device: str, calibrations: Path) -> dict[str, Any]:
    """What the plan says, in base units."""
    from genwright.catalogue.device_names import Placed, place
    from genwright.catalogue.devices import devices
    from genwright.plan.priced.calibration import calibration_of
    from genwright.plan.priced.energy import step_watts
    from genwright.plan.priced.step_time import step_time
    from genwright.plan.traced.setup import Setup
    from genwright.plan.training import estimate_training, trace_training

    setup = Setup(
        model=values_of(asked), adapter=asked["adapter"], base=asked.get("base", ""), seq_len=asked["row"],
        micro_batch=asked["rows"], precision="bf16", recompute=asked.get("recompute", "none"), framework="genwright",
    )  # fmt: skip
    where = place(_device_name()) if device == "cuda" else Placed(devices()["cpu-2"])
    began = time.perf_counter()
    found = estimate_training(setup, where.device)
    trace, setup, _ = trace_training(setup)
    sheet = step_time(trace, where, setup)
    curves = calibration_of(where.device, calibrations)
    drawn = step_watts(where.device, sheet)
    return {
        **{name: found.quantities[name].value for name in ("active_peak_bytes", "reserved_peak_bytes", "device_peak_bytes")},
        "datasheet_seconds": sheet.total, "datasheet_parts": sheet.parts,
        "calibrated_seconds": step_time(trace, where, setup, speeds=curves.speeds()).total if curves else None,
        "joules_per_second": drawn, "planning_seconds": time.perf_counter() - began,
    }  # fmt: skip


def measured(asked: dict[str, Any], device: str, steps: int, before: float) -> dict[str, Any]:
    """What happens, in base units; `before` is what the driver saw in use without us. The energy is of the steps alone."""
    import torch

    from genwright.catalogue.parts import ADAPTERS
    from genwright.data.layouts import plain_feed
    from genwright.data.templates import Encoded
    from genwright.engine.build import build
    from genwright.engine.recipe import Recipe
    from genwright.objectives.language import Causal
    from genwright.parallel.mesh import Placement
    from gpu_train import random_model, step_of, timed

    adapter = ADAPTERS[asked["adapter"]](**({"base": asked["base"]} if asked.get("base") else {}))
    recipe = Recipe(Causal(), adapter, "bf16", 8, asked["rows"], 1e-4, pack_tokens=asked["row"] * asked["rows"])
    values = values_of(asked)
    built = build(recipe, random_model(values), Placement(device=device, recompute=asked.get("recompute", "none")))
    ids = torch.randint(0, values["vocab_size"], (asked["row"],)).tolist()
    feed = plain_feed(
        [Encoded(ids, [False] + [True] * (asked["row"] - 1), 0, str(row)) for row in range(asked["rows"])]
    )
    step = step_of(built, recipe, type(feed)(feed.encoded, feed.layout, feed.pad_id, device=device))
    if device == "cuda":
        torch.cuda.empty_cache()  # what only building took is not the training's
    step(), step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    energy, began = _joules(device), time.perf_counter()
    seconds = [timed(step, device) for _ in range(steps)]
    spent, took = _joules(device), time.perf_counter() - began
    cuda = device == "cuda"
    return {
        "active_peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "reserved_peak_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "device_peak_bytes": _used_bytes() - before if cuda else None,
        "step_seconds": seconds, "median_seconds": statistics.median(seconds),
        "joules_per_second": (spent - energy) / took if spent and energy else None,
    }  # fmt: skip


def _device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name(0))


def _query(what: str) -> float | None:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _used_bytes() -> float:
    return (_query("memory.used") or 0.0) * 2**20


def _joules(device: str) -> float | None:
    """NVML's counter since the driver was loaded; None where it cannot be read."""
    if device != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000
    except Exception:  # no package, or a driver that does not tell
        return None


def one(asked: dict[str, Any], device: str, steps: int, calibrations: Path) -> dict[str, Any]:
    """A recipe's row: asked, predicted, measured, errors as fractions."""
    row: dict[str, Any] = {"asked": asked}
    before = _used_bytes() if device == "cuda" else 0.0  # before anything asks for a context
    for name, call in (
        ("predicted", lambda: predicted(asked, device, calibrations)),
        ("measured", lambda: measured(asked, device, steps, before)),
    ):
        try:
            row[name] = call()
        except Exception as error:  # a recipe that fails is a row that says so
            row[name] = {}
            row["failed"] = [*row.get("failed", []), f"{name}: {type(error).__name__}: {str(error)[:300]}"]
    pairs = {
        name: (row["predicted"].get(name), row["measured"].get(name))
        for name in ("active_peak_bytes", "reserved_peak_bytes", "device_peak_bytes", "joules_per_second")
    }
    real = row["measured"].get("median_seconds")
    pairs |= {name: (row["predicted"].get(name), real) for name in ("datasheet_seconds", "calibrated_seconds")}
    row["errors"] = {name: said / real - 1 for name, (said, real) in pairs.items() if said and real}
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and largest absolute error of each quantity, rows scored, rows that failed."""
    names = sorted({name for row in rows for name in row["errors"]})
    errors = {name: [abs(row["errors"][name]) for row in rows if name in row["errors"]] for name in names}
    table = {
        name: {"median": statistics.median(values), "largest": max(values), "rows": len(values)}
        for name, values in errors.items()
    }
    return table | {"failed": [why for row in rows for why in row.get("failed", [])]}


def main() -> None:
    """Each recipe in a process of its own; print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=45.0, help="of calibration; 0: none")
    parser.add_argument("--src", default=str(HERE.parent / "src"), help="where the package is, if it is not installed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--calibrations", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sys.path[:0] = [chosen.src, str(HERE)]
    if chosen.one:
        print(json.dumps(one(json.loads(chosen.one), chosen.device, chosen.steps, Path(chosen.calibrations))))
        return
    recipes = RECIPES if chosen.device == "cuda" else [one | {"tiny": True, "row": 64} for one in RECIPES]
    recipes = [recipes[int(number)] for number in chosen.only.split(",")] if chosen.only else recipes
    rows = [row for row in _kept() if row["asked"] not in recipes] if chosen.device == "cuda" else []
    with tempfile.TemporaryDirectory() as folder:
        for row in _rows(recipes, chosen, folder):
            rows.append(row)
            if chosen.device == "cuda":
                _keep(rows)
    print(json.dumps(summary(rows), indent=1))


def _kept() -> list[dict[str, Any]]:
    return list(json.loads(OUT.read_text())["rows"]) if OUT.exists() else []


def _keep(rows: list[dict[str, Any]]) -> None:
    from machine import write_result

    folder = Path(os.environ.get("OUT", OUT.parent))
    write_result(folder / OUT.name, device=_device_name(), summary=summary(rows), rows=rows)


def _rows(recipes: list[dict[str, Any]], chosen: argparse.Namespace, folder: str) -> Any:
    if chosen.seconds and chosen.device == "cuda":
        code = CALIBRATE.format(src=chosen.src, folder=folder, seconds=chosen.seconds)
        subprocess.run([sys.executable, "-c", code], check=False)
    for asked in recipes:
        words = [
            sys.executable,
            __file__,
            "--one",
            json.dumps(asked),
            "--device",
            chosen.device,
            "--steps",
            str(chosen.steps),
            "--calibrations",
            folder,
            "--src",
            chosen.src,
        ]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = ran.stdout.strip().splitlines()
        row = (
            json.loads(lines[-1])
            if lines and ran.returncode == 0
            else {"asked": asked, "errors": {}, "failed": [ran.stderr[-400:]]}
        )
        print(
            json.dumps(
                {"asked": asked, "errors": row["errors"], **({"failed": row["failed"]} if "failed" in row else {})}
            ),
            flush=True,
        )
        yield row


if __name__ == "__main__":
    main()
