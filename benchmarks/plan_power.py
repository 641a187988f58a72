"""The power model against Splitwise's A100: mean draw and energy of a request, from the setup alone, beside what was recorded.

    python benchmarks/plan_power.py [--rows ../shared/data/planner/inference_open.csv]

Rows whose notes state a mean power (a share of the design power). Energy is mean power x (prefill + (out - 1) x token), both
sides with their own times. Results: benchmarks/results/plan_power.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from pathlib import Path

from genwright.plan.priced.energy import phase_watts
from genwright.plan.published.row_serving import serving_row
from genwright.plan.serving import decode_seconds, prefill_seconds, server
from machine import write_result

OUT = Path(__file__).parent / "results" / "plan_power.json"
ROWS = Path(__file__).parents[2] / "shared" / "data" / "planner" / "inference_open.csv"


def score(row: dict[str, str]) -> dict[str, float | str] | None:
    """Errors of a row's power and energy; None where it recorded none."""
    found = re.search(r"average_power=([\d.]+)", row["notes"])
    if not found or not float(found[1]):
        return None
    asked = serving_row(row)
    one = server(asked.setup, asked.placed)
    steps = asked.setup.output_tokens
    seconds = {"prefill": prefill_seconds(one), "decode": decode_seconds(one) * (steps - 1)}
    each = {"prefill": seconds["prefill"], "decode": seconds["decode"] / (steps - 1)}
    joules = sum((phase_watts(one, phase, each[phase]) or 0.0) * spent for phase, spent in seconds.items())
    published = float(found[1]) * (asked.placed.device.watts or 0.0)
    real = (float(row["prefill_ms"]) + float(row["token_ms"]) * (steps - 1)) / 1000
    power = joules / sum(seconds.values())
    return {"id": row["id"], "power_error": power / published - 1, "energy_error": joules / (published * real) - 1}


def main() -> None:
    """Score, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    with parser.parse_args().rows.open(encoding="utf-8", newline="") as file:
        rows = [found for row in csv.DictReader(file) if (found := score(row))]
    summary = {"rows": len(rows)} | {
        name: statistics.median(abs(float(row[name])) for row in rows) for name in ("power_error", "energy_error")
    }
    print(json.dumps(summary))
    write_result(OUT, summary=summary, rows=rows)


if __name__ == "__main__":
    main()
