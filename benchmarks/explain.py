"""How far explanations of a small model can be trusted, over many answers.

    python benchmarks/explain.py --project examples/forget-one --out benchmarks/results/explain.json

The model of examples/forget-one, applied before. Of each fact: the faithfulness of integrated gradients and ablation (deletion and
insertion against orders by chance, in shares of the score), how incomplete the gradients are, and at which place the very training
row comes among those compared, by gradient and by embedding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from genwright.improve.explaining import explain_answer, training_rows
from genwright.project.spec import read_spec
from genwright.talk import chat_session
from machine import write_result


def place(rows: list[dict[str, Any]], text: str, key: str) -> int:
    """From 1; one more than all that were listed where it is not among them."""
    ordered = sorted(rows, key=lambda row: -row[key])
    return next((number for number, row in enumerate(ordered, 1) if row["text"] == text), len(rows) + 1)


def mean(values: list[float]) -> float:
    return round(statistics.fmean(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("examples/forget-one"))
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    answering = chat_session(read_spec(options.project / "genwright.toml"), options.project).answering
    train = training_rows(options.project, "data/all.jsonl")
    lines = (options.project / "data" / "retain.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines[:: max(1, len(lines) // options.facts)]][: options.facts]
    found, began = [], time.perf_counter()
    for row in asked:
        one = explain_answer(answering, row["prompt"], answer=row["completion"], train=train, train_rows=10_000)
        own = f"{row['prompt']} -> {row['completion']}"
        found.append(
            one | {"places": {key: place(one["rows"], own, key) for key in ("gradient_cosine", "embedding_cosine")}}
        )
    seconds = (time.perf_counter() - began) / len(asked)
    methods: dict[str, Any] = {}
    for name in found[0]["attributions"]:
        own = [one["attributions"][name] for one in found]
        gains = {kind: [one["faithfulness"]["gain"][kind] for one in own] for kind in ("deletion", "insertion")}
        methods[name] = {f"{kind}_gain": mean(values) for kind, values in gains.items()}
        methods[name]["better_by_both"] = sum(min(pair) > 0 for pair in zip(*gains.values()))
    gaps = [one["attributions"]["integrated gradients"]["incompleteness"] for one in found]
    result = {
        "answers": len(asked), "seconds_an_answer": round(seconds, 1),
        "rows_compared": found[0]["rows_compared"], "methods": methods,
        "incompleteness": {"median": round(statistics.median(gaps), 4), "most": round(max(gaps), 4)},
        "own_row_first": {key: sum(one["places"][key] == 1 for one in found) for key in found[0]["places"]},
    }  # fmt: skip
    write_result(options.out, **result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
