"""What was applied here as one table: both models on the same test rows, and what each took.

    python table.py [--base DIR]                 # the table of README.md, from the records of the two runs

Quality is on the test rows; the time of the rung is wall time, what one answer takes is its share of judging.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from genwright.evaluate.statistics import paired
from genwright.web.summaries import read_results

HERE = Path(__file__).parent
PROJECTS = {"encoder-decoder, from nothing": ".", "decoder, few-shot": "decoder"}


def line(name: str, stages: dict[str, dict[str, Any]]) -> str:
    """A row of the table."""
    adapt, evaluate, scope = stages["adapt"], stages["evaluate"], stages["scope"]
    score = evaluate["scores"][adapt["chosen"]][evaluate["metric"]]
    rung = next(rung for rung in adapt["rungs"] if rung["name"] == adapt["chosen"])
    took, planned = rung["measured"], rung["planned"]["seconds"]
    weights = stages["integrate"]["bytes"]
    answer = 1000 * took["evaluate_seconds"] / scope["rows"]["validation"]
    value = f"{score['value']:.1f} ({score['low']:.1f} to {score['high']:.1f})"
    return f"| {name} | {weights / 2**20:.0f} MiB | {value} | {took['seconds']:.0f} s | {planned:.0f} s | {answer:.0f} ms |"


def compared(base: Path) -> str:
    """The large decoder against the small encoder-decoder on the same test rows; "" where one was not applied."""
    scores = []
    for place in PROJECTS.values():
        results = read_results(base / place)
        if "evaluate" not in results.stages:
            return ""
        rows = results.predictions(results.stages["adapt"]["chosen"])
        scores.append({row["prompt"]: row["score"] for row in rows})
    both = sorted(set(scores[0]) & set(scores[1]))
    found = paired([scores[0][row] for row in both], [scores[1][row] for row in both])
    interval = f"{found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return f"decoder - encoder-decoder on {found.n} equal test rows: {interval}, p = {found.p_value:.2g} ({found.test})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=HERE, help="the folder with the projects")
    options = parser.parse_args()
    print("| model | files | chrF on test rows | time of the rung | planned | an answer |")
    print("|---|---|---|---|---|---|")
    for name, place in PROJECTS.items():
        stages = read_results(options.base / place).stages
        if "integrate" in stages:
            print(line(name, stages))
    print(f"\n{compared(options.base)}")


if __name__ == "__main__":
    main()
