"""Whole runs: device-hours and energy from a model's sizes, its tokens and its device, beside what was published.

    python benchmarks/plan_runs.py [--rows ../shared/data/planner/runs_open.csv]

Sizes are each model's config. The energy of most rows was itself computed as design power times hours: it tests arithmetic,
not a meter. Results: benchmarks/results/plan_runs.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

from genwright.catalogue.device_names import place
from genwright.plan.priced.energy import footprint
from genwright.plan.whole_run import whole_run
from machine import write_result

OUT = Path(__file__).parent / "results" / "plan_runs.json"
ROWS = Path(__file__).parents[2] / "shared" / "data" / "planner" / "runs_open.csv"
SIZES = {
    "LLaMA-7B": (6.74e9, 32, 4096, 2048), "LLaMA-13B": (13.0e9, 40, 5120, 2048), "LLaMA-33B": (32.5e9, 60, 6656, 2048),
    "LLaMA-65B": (65.2e9, 80, 8192, 2048), "OPT-175B": (175e9, 96, 12288, 2048), "BLOOM-175B": (176e9, 70, 14336, 2048),
    "BLOOM-176B": (176e9, 70, 14336, 2048), "OpenBA-15B": (7.5e9, 0, 0, 0), "GLM-130B": (130e9, 70, 12288, 2048),
    "FMS Llama2-7B replica": (6.74e9, 32, 4096, 4096), "TinyLlama-1.1B (per 300B tokens)": (1.1e9, 22, 2048, 2048),
    "Pythia-1.0B": (1.01e9, 16, 2048, 2048), "MPT-1.3B (per 300B tokens)": (1.3e9, 24, 2048, 2048),
}  # fmt: skip
"""(weights a token passes through, layers, width, tokens of a row); of an encoder-decoder a token passes through half."""


def score(row: dict[str, str]) -> dict[str, Any] | None:
    """A row's prediction and its errors; None where it states no hours."""
    if row["model"] not in SIZES or not row["device_hours"]:
        return None
    weights, layers, width, tokens = SIZES[row["model"]]
    number = float(row["tokens"][:-1]) * {"T": 1e12, "B": 1e9}[row["tokens"][-1]]
    found = whole_run(weights, number, row["device"], layers=layers, width=width, seq_len=tokens, where="us")
    hours, kwh = float(row["device_hours"]), float(row["energy_kwh"] or 0)
    spent = footprint(place(row["device"]).device, hours, where="us")
    return {
        "id": row["id"], "model": row["model"], "device_hours": found.device_hours.value, "published_hours": hours,
        "hours_error": found.device_hours.value / hours - 1,
        "energy_error_at_published_hours": spent.kwh / kwh - 1 if spent and kwh else None,
    }  # fmt: skip


def main() -> None:
    """Score, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    with parser.parse_args().rows.open(encoding="utf-8", newline="") as file:
        rows = [found for row in csv.DictReader(file) if (found := score(row))]
    errors = [abs(row["hours_error"]) for row in rows]
    energy = [
        abs(row["energy_error_at_published_hours"])
        for row in rows
        if row["energy_error_at_published_hours"] is not None
    ]
    summary = {
        "rows": len(rows), "within_25_percent": sum(error <= 0.25 for error in errors), "median": statistics.median(errors),
        "energy_rows": len(energy), "energy_median": statistics.median(energy),
    }  # fmt: skip
    for row in rows:
        print(json.dumps(row))
    print(json.dumps(summary))
    write_result(OUT, summary=summary, rows=rows)


if __name__ == "__main__":
    main()
