"""Time, out of sample: published figures of sources that no constant was ever set on, beside what the plan says of them.

    python benchmarks/plan_time_extra.py [--cache DIR] [--name NAME] [--only SOURCES]

The table (benchmarks/plan_time_extra.csv) holds figures only, each row with its source, its date and whether that source could
be read in full when the row was written. `request_tokens_per_s` is of whole requests, their prompts' time in it. Results are
kept by name, so that the first score, before anything was mended, stays. Results: benchmarks/results/plan_time_extra.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genwright.plan.published.rows import predict
from machine import stamped

ROWS = Path(__file__).parent / "plan_time_extra.csv"
OUT = Path(__file__).parent / "results" / "plan_time_extra.json"
TRAINING = ("batch_size", "input_tokens", "output_tokens", "prefill_ms", "token_ms", "request_tokens_per_s")
SERVING = ("seq_len", "micro_batch", "grad_accum", "activation_ckpt", "compile", "tokens_per_s_per_device")
"""Columns of the other kind, by whose absence the planner knows which table it reads."""


def asked(row: dict[str, str]) -> dict[str, str]:
    """What the planner is given: no result."""
    foreign = TRAINING if row["kind"] == "training" else (*SERVING, "prefill_ms", "token_ms", "request_tokens_per_s")
    return {name: value for name, value in row.items() if name not in foreign}


def errors_of(row: dict[str, str], found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(quantity, relative error of the time) of what a row states."""
    if row["tokens_per_s_per_device"]:
        yield "training", float(row["tokens_per_s_per_device"]) / found["tokens_per_s_per_device"] - 1
    if row["prefill_ms"]:
        yield "prefill", found["prefill_ms"] / float(row["prefill_ms"]) - 1
    if row["token_ms"]:
        yield "decode", found["token_ms"] / float(row["token_ms"]) - 1
    if row["request_tokens_per_s"]:
        batch, answer = float(row["batch_size"]), float(row["output_tokens"])
        seconds = (found["prefill_ms"] + answer * found["token_ms"]) / 1e3
        yield "requests", float(row["request_tokens_per_s"]) * seconds / (batch * answer) - 1


def summary(errors: list[float]) -> dict[str, float]:
    """Rows, median and 90th percentile of absolute errors, and the median with its sign."""
    sizes = sorted(map(abs, errors))
    return {
        "rows": len(sizes), "median": statistics.median(sizes), "p90": sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))],
        "bias": statistics.median(errors),
    }  # fmt: skip


def score(rows: list[dict[str, str]], cache: Path | None) -> dict[str, Any]:
    """Every row's errors, by quantity and by source."""
    kept: dict[str, dict[str, float]] = defaultdict(dict)
    refused = {}
    for row, found in zip(rows, predict(map(asked, rows), cache=cache), strict=True):
        if found["refused"]:
            refused[row["id"]] = found["refused"]
            continue
        for quantity, error in errors_of(row, found):
            kept[quantity][row["id"]] = error
    sources: dict[str, list[float]] = defaultdict(list)
    for quantity, errors in kept.items():
        for name, error in errors.items():
            sources[f"{name.rpartition('-')[0]}, {quantity}"].append(error)
    return {
        "summary": {name: summary(list(errors.values())) for name, errors in kept.items()},
        "by_source": {name: summary(errors) for name, errors in sorted(sources.items())}, "refused": refused, "errors": kept,
    }  # fmt: skip


def main() -> None:
    """Score, print, keep under its name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--name", default="now", help="what this score is kept as (default: now)")
    parser.add_argument("--kind", default="", help="training or serving alone; keeps nothing")
    parser.add_argument(
        "--only", default="", help="rows of sources so named, with commas between; kept under the name alone"
    )
    chosen = parser.parse_args()
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if chosen.kind in ("", row["kind"])]
    sources = tuple(chosen.only.split(","))
    rows = [row for row in rows if row["id"].rpartition("-")[0] in sources or not chosen.only]
    found = score(rows, chosen.cache)
    for part in ("summary", "by_source"):
        for name, one in found[part].items():
            print(f"{name:32}", "  ".join(f"{key} {value:.3g}" for key, value in one.items()))
    print("refused", len(found["refused"]))
    if not chosen.kind:
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        OUT.write_text(json.dumps(known | {chosen.name: stamped(**found)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
