"""Whether the plan orders strategies as measurements do: pairs of published rows that differ in nothing but how the work is split.

    python benchmarks/plan_order.py --data DIR [--cache DIR]      DIR holds training_open.csv

A pair is of one source, one model, one device, one length and one task; strategy, tensor or pipeline degree, recomputing,
microbatch, accumulation or count differ. Pairs whose measured rates are within 3 % are left out: noise decides those. Tokens a
second and device are compared, or utilisation where only that is published. Where a source dates its rows and says that days
are not to be compared (bigscience: the machine changed between them), pairs of one day are counted apart.
Results: benchmarks/results/plan_order.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from genwright.plan.published.rows import predict, read_rows
from machine import write_result
from plan_accuracy import SKIPPED, time_error

OUT = Path(__file__).parent / "results" / "plan_order.json"
SAME = ("source_key", "model", "device", "seq_len", "adaptation", "precision", "objective")
VARIED = (
    "strategy_norm",
    "parallel",
    "tp",
    "pp",
    "cp",
    "activation_ckpt",
    "micro_batch",
    "grad_accum",
    "global_batch",
    "n_devices",
)
SPLIT = ("strategy_norm", "parallel", "tp", "pp", "cp")
CLOSE = 0.03
"""Rates nearer than this are not ordered."""


def day(row: dict[str, str]) -> str:
    """The date that a row's notes begin with, month and day."""
    found = re.match(r"\d\d-\d\d", row["notes"])
    return found[0] if found else ""


def rated(rows: list[dict[str, str]], found: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Id -> (measured, planned) tokens a second and device."""
    rates = {}
    for row in rows:
        answer = found[row["id"]]
        error = None if answer["refused"] else time_error(row, answer)
        if error is not None:
            planned = answer["tokens_per_s_per_device"]
            rates[row["id"]] = (planned * (1 + error), planned)
    return rates


def pairs(
    rows: list[dict[str, str]], rates: dict[str, tuple[float, float]], differ: tuple[str, ...], *, one_day: bool = False
) -> dict[str, list[bool]]:
    """Source -> whether each pair that differs in one of `differ` is ordered as measured."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["id"] in rates:
            groups[(*(row[name] for name in SAME), day(row) if one_day else "")].append(row)
    kept: dict[str, list[bool]] = defaultdict(list)
    for several in groups.values():
        for one, other in itertools.combinations(several, 2):
            (a, b), (c, d) = rates[one["id"]], rates[other["id"]]
            if any(one[name] != other[name] for name in differ) and abs(a / c - 1) > CLOSE:
                kept[one["source_key"]].append((a > c) == (b > d))
    return kept


def summary(kept: dict[str, list[bool]]) -> dict[str, Any]:
    """Pairs and the share that is right, whole and by source."""
    every = [right for several in kept.values() for right in several]
    return {
        "pairs": len(every), "right": sum(every) / max(1, len(every)),
        "by_source": {name: {"pairs": len(several), "right": sum(several) / len(several)} for name, several in kept.items()},
    }  # fmt: skip


def main() -> None:
    """Score, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    chosen = parser.parse_args()
    rows = [
        row
        for row in read_rows(chosen.data / "training_open.csv")
        if row["id"] not in SKIPPED and row["outcome"] == "ok"
    ]
    rows = [
        row
        for row in rows
        if row["step_time_s"] or row["tokens_per_s_per_device"] or row["tokens_per_s_total"] or row["mfu_pct"]
    ]
    rates = rated(rows, {str(one["id"]): one for one in predict(rows, cache=chosen.cache)})
    found = {
        "any way to split the work": pairs(rows, rates, VARIED), "strategy or degrees": pairs(rows, rates, SPLIT),
        "strategy or degrees, on one day": pairs(rows, rates, SPLIT, one_day=True),
    }  # fmt: skip
    result = {name: summary(kept) for name, kept in found.items()}
    print(json.dumps(result, indent=1))
    write_result(OUT, **result)


if __name__ == "__main__":
    main()
