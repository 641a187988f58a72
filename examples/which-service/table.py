"""What was applied here as one table, and the two ladders as plots.

    python table.py [--docs DIR]                 # ladder-easy.svg and ladder-harder.svg in DIR, or here

Quality is on the test rows; cost is what the project's own figures make of the time that was spent: of making it, and of 1,000
answers at the pace of judging.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from genwright.evaluate.statistics import paired
from genwright.web.choices import climb_steps
from genwright.web.plots import climb_plot
from genwright.web.summaries import read_results

HERE = Path(__file__).parent
FILES = {"ladder": "ladder-easy.svg", "harder": "ladder-harder.svg"}
PROJECTS = {"encoder": "encoder", "ladder": ".", "always-lora": "always-lora", "harder": "harder"}


def line(name: str, stages: dict[str, dict[str, Any]]) -> str:
    """A row of the table."""
    adapt, evaluate = stages["adapt"], stages["evaluate"]
    score = evaluate["scores"][adapt["chosen"]][evaluate["metric"]]
    rungs = [rung for rung in adapt["rungs"] if rung.get("measured")]
    seconds, usd, joules = (
        sum(rung["measured"].get(key) or 0.0 for rung in rungs) for key in ("seconds", "usd", "joules")
    )
    answer = next(rung["measured"]["evaluate_seconds"] for rung in rungs if rung["name"] == adapt["chosen"])
    value = f"{score['value']:.1f} ({score['low']:.1f} to {score['high']:.1f})"
    rows = stages["scope"]["rows"]["validation"]
    climbed = ", ".join(rung["name"] for rung in rungs)
    each = answer / rows
    thousand = f"{1000 * each * usd / seconds:.4f} $, {1000 * each * joules / seconds:.0f} J"
    return f"| {name} | {climbed} | {value} | {seconds:.0f} s | {usd:.4f} $ | {joules:.0f} J | {1000 * each:.0f} ms | {thousand} |"


def compared(base: Path) -> str:
    """The encoder against the decoder's ladder on the same test rows."""
    scores = {}
    for name in ("ladder", "encoder"):
        results = read_results(base / PROJECTS[name])
        if "evaluate" not in results.stages:
            return ""
        rows = results.predictions(results.stages["adapt"]["chosen"])
        scores[name] = {row["prompt"]: row["score"] for row in rows}
    both = sorted(set(scores["ladder"]) & set(scores["encoder"]))
    lines = (base / "data" / "services.jsonl").read_text(encoding="utf-8").splitlines()
    group = {row["text"]: row["group"] for row in map(json.loads, lines)}  # rows of one command are not independent
    before, after = ([scores[name][row] for row in both] for name in ("ladder", "encoder"))
    found = paired(before, after, groups=[group[row] for row in both])
    interval = f"{found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return f"encoder - decoder on {found.n} equal test rows: {interval}, p = {found.p_value:.2g} ({found.test})"


def main() -> None:
    """Print the table, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=HERE, help="the folder with the projects")
    parser.add_argument("--docs", type=Path, default=HERE, help="where the plots go")
    options = parser.parse_args()
    print("| project | rungs climbed | accuracy on test rows | time | money | energy | an answer | 1,000 answers |")
    print("|---|---|---|---|---|---|---|---|")
    for name, place in PROJECTS.items():
        stages = read_results(options.base / place).stages
        if "evaluate" in stages:
            print(line(name, stages))
        if "adapt" in stages and name in FILES:
            adapt = stages["adapt"]
            plot = climb_plot(
                climb_steps(adapt["rungs"]), target=adapt["target"], metric=adapt["metric"], unit="seconds"
            )
            text = plot.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
            (options.docs / FILES[name]).write_text(text + "\n", encoding="utf-8")
    print(f"\n{compared(options.base)}")


if __name__ == "__main__":
    main()
