"""What a plan costs: processor seconds and memory of the very commands, interpreter and imports counted apart.

    python benchmarks/plan_cost.py [--turns 3] [--smoke]

Each turn runs every command in a fresh process, first with no trace kept, then again with only the device or the count changed.
Beside wall seconds stand processor seconds (user and system), which a machine that does other work meanwhile moves less, and
the same of `import torch, transformers` and the parts that trace, which every traced plan pays, and of the command without them.
The goal (issue 4): 3 s, 10 s and 20 s with nothing kept, 0.3 s to price again, on 2 cores, under 4 GB.
`genwright plan` of examples/cloud-commands is run where its data and model are on disk. Results: benchmarks/results/plan_cost.json.
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

from machine import commit, date, machine, versions

OUT = Path(__file__).parent / "results" / "plan_cost.json"
DEMO = Path(__file__).parents[1] / "examples" / "cloud-commands"
PROGRAM = [sys.executable, "-m", "genwright"]
IMPORTS = "import genwright.plan.traced.trace_setup, transformers.models.llama.modeling_llama"
PLAN_IMPORTS = "import genwright.outlook, peft, transformers.models.llama.modeling_llama"
CASES = [
    ("135M", 3.0, "smollm2-135m --adapter full --device h100", "--device a100"),
    ("135M, LoRA", 3.0, "smollm2-135m --device h100", "--device l4"),
    ("8B on 8", 10.0, "llama-3.1-8b --device h100 --count 8 --seq-len 4096", "--device a100 --count 4"),
    ("8B whole on 8", 10.0, "llama-3.1-8b --adapter full --device h100 --count 8 --seq-len 4096", "--device h200 --count 16"),
    ("70B on 64", 20.0, "llama-3.1-70b --adapter full --device h100 --count 64 --strategy zero3 --recompute full --seq-len 8192",
     "--device h200 --count 32"),
]  # fmt: skip


def cost(words: list[str], environment: dict[str, str], folder: Path | None = None) -> dict[str, float]:
    """Wall and processor seconds and peak bytes of one command."""
    began = time.perf_counter()
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=folder
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(words)}: {said}")
    seconds = time.perf_counter() - began
    return {"wall": seconds, "cpu": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024.0}


def turn(cases: list[Any]) -> dict[str, dict[str, float]]:
    """Every command once, in turn with its imports."""
    found = {"light start": cost([*PROGRAM, "--version"], dict(os.environ))}
    with tempfile.TemporaryDirectory() as name:
        kept = os.environ | {"GENWRIGHT_CACHE": name}
        for title, _, words, other in cases:
            found[f"{title}: imports"] = cost([sys.executable, "-c", IMPORTS], kept)
            found[title] = cost([*PROGRAM, "estimate", *words.split(), "--json"], kept)
            found[f"{title}: again"] = cost([*PROGRAM, "estimate", *f"{words} {other}".split(), "--json"], kept)
    if (DEMO / "data" / "az.jsonl").is_file():
        found["plan of the demo: imports"] = cost([sys.executable, "-c", PLAN_IMPORTS], dict(os.environ))
        found["plan of the demo"] = cost([*PROGRAM, "plan", "--json"], dict(os.environ), DEMO)
    return found


def summary(turns: list[dict[str, dict[str, float]]], cases: list[Any]) -> list[dict[str, Any]]:
    """Medians over the turns, beside the goals."""
    median = lambda title, what: statistics.median(one[title][what] for one in turns)
    beyond = lambda title, base: statistics.median(one[title]["cpu"] - one[base]["cpu"] for one in turns)
    rows = []
    for title, goal, *_ in [*cases, *([("plan of the demo", 3.0)] if "plan of the demo" in turns[0] else [])]:
        row = {
            "what": title, "goal_seconds": goal, "cpu_seconds": median(title, "cpu"), "wall_seconds": median(title, "wall"),
            "cpu_seconds_beyond_imports": beyond(title, f"{title}: imports"), "peak_gb": median(title, "peak_bytes") / 1e9,
        }  # fmt: skip
        if f"{title}: again" in turns[0]:
            row["again_cpu_seconds"] = median(f"{title}: again", "cpu")
            row["again_cpu_seconds_beyond_start"] = beyond(f"{title}: again", "light start")
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one turn of the first command; keeps nothing")
    chosen = parser.parse_args()
    cases = CASES[:1] if chosen.smoke else CASES
    turns = [turn(cases) for _ in range(1 if chosen.smoke else chosen.turns)]
    rows = summary(turns, cases)
    print(json.dumps(rows, indent=1))
    if not chosen.smoke:
        kept = {
            "date": date(),
            "commit": commit(),
            "machine": machine(),
            "versions": versions(),
            "summary": rows,
            "turns": turns,
        }
        OUT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
