"""Memory, out of sample: published figures of sources that no rule was ever set on, beside what the plan says of them.

    python benchmarks/plan_memory_extra.py [--cache DIR] [--name NAME] [--only PREFIX]

The table (benchmarks/plan_memory_extra.csv) holds figures only, each row with its source and date, as GiB of one device. What was
published as reserved (`torch.cuda.max_memory_reserved`) is held against ours reserved; where the kind is not stated, anything from
active to device is right, else it misses by the nearer end. Results are kept by name, so that the first score, before anything was
mended, stays. Results: benchmarks/results/plan_memory_extra.json.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from genwright.plan.published.rows import predict
from machine import stamped
from plan_time_extra import summary

ROWS = Path(__file__).parent / "plan_memory_extra.csv"
OUT = Path(__file__).parent / "results" / "plan_memory_extra.json"


def error(row: dict[str, str], found: dict[str, Any]) -> float:
    """Relative, of the kind of memory that the row states."""
    measured = float(row["mem_gib"])
    low, high = found["peak_active_gib"], found["peak_device_gib"]
    if row["mem_kind"] == "reserved":
        low = high = found["peak_reserved_gib"]
    nearest = min(max(measured, low), high)
    return float(nearest / measured - 1)


def score(rows: list[dict[str, str]], cache: Path | None) -> dict[str, Any]:
    """Every row's error, by source; verdicts of those that did not fit are counted apart."""
    errors: dict[str, float] = {}
    refused, verdicts = {}, []
    asked = [{name: value for name, value in row.items() if name not in ("mem_gib", "mem_kind")} for row in rows]
    for row, found in zip(rows, predict(asked, cache=cache), strict=True):
        if found["refused"]:
            refused[row["id"]] = found["refused"]
            continue
        verdicts.append(bool(found["fits"]) == bool(row["mem_gib"]))
        if row["mem_gib"]:
            errors[row["id"]] = error(row, found)
    sources: dict[str, list[float]] = defaultdict(list)
    for name, off in errors.items():
        sources[name.rpartition("-")[0]].append(off)
    return {
        "summary": summary(list(errors.values())), "by_source": {name: summary(one) for name, one in sorted(sources.items())},
        "fits": {"rows": len(verdicts), "right": sum(verdicts) / max(1, len(verdicts))}, "refused": refused, "errors": errors,
    }  # fmt: skip


def main() -> None:
    """Score, print, keep under its name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--name", default="now", help="what this score is kept as (default: now)")
    parser.add_argument("--only", default="", help="rows whose id begins so; keeps nothing")
    chosen = parser.parse_args()
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["id"].startswith(chosen.only)]
    found = score(rows, chosen.cache)
    for name, one in {"all": found["summary"], **found["by_source"]}.items():
        print(f"{name:16}", "  ".join(f"{key} {value:.3g}" for key, value in one.items()))
    print("fits", found["fits"], "refused", len(found["refused"]))
    if not chosen.only:
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        OUT.write_text(json.dumps(known | {chosen.name: stamped(**found)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
