"""Routing on held-out queries: experts of public subjects and tasks, and queries that belong to none. Writes results/router.json.

    python benchmarks/router.py --data FOLDER [--draws 3] [--out benchmarks/results]

`far`: the none-queries are of other data sets. `near`: of subjects and tasks of the same collections that are no expert here
(leave-experts-out), where a sibling subject is often a fair choice. Draws of experts by seed: weights and thresholds were chosen on
others. A second pool of experts, the intents of Banking77, had no part in any choice.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from genwright.serve.contracts import AUTO, Request
from genwright.serve.embed import packaged_embedder
from genwright.serve.expert_profile import profile_of
from genwright.serve.router import CentroidRouter, confusion
from machine import write_result
from routing_sets import texts_by_set

TESTED, TESTED_NEAR = 30, 8
FIRST = 300
"""Seed of the first draw."""


def main() -> None:
    """10 and 40 experts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    embedder = packaged_embedder()
    sets = texts_by_set(arguments.data)
    own = [name for name in sets if name.startswith(("bbh:", "mmlu:")) or name == "banking"]
    far = [name for name in sets if name not in own and not name.startswith("intent:")]
    intents = [name for name in sets if name.startswith("intent:")]
    results: dict[str, Any] = {"tested_each": TESTED, "most_tokens": embedder.most_tokens}
    for label, pool in (("experts", own), ("intents", intents)):
        profiles = {name: profile_of(sets[name][TESTED:], embedder, name=name) for name in pool}
        for count in (10, 40):
            seeds = range(FIRST, FIRST + arguments.draws)
            results[f"{label}-{count}"] = [_draw(embedder, sets, profiles, pool, far, count, seed) for seed in seeds]
            print(label, count, json.dumps(results[f"{label}-{count}"]), flush=True)
            write_result(arguments.out / "router.json", **results)


def _draw(
    embedder: Any, sets: dict[str, list[str]], profiles: dict[str, Any], pool: list[str], far: list[str], count: int, seed: int
) -> dict[str, float]:  # fmt: skip
    names = random.Random(seed).sample(sorted(pool), count)
    began = time.perf_counter()
    router = CentroidRouter(embedder, [profiles[name] for name in names])
    fit_seconds = time.perf_counter() - began
    right = confusion(router, {name: sets[name][:TESTED] for name in names})
    near = confusion(router, {name: sets[name][:TESTED_NEAR] for name in pool if name not in names})
    other = confusion(router, {name: sets[name][:TESTED] for name in far})
    total = sum(sum(row.values()) for row in right.values())
    routed = sum(sum(hits for who, hits in row.items() if who) for row in right.values())
    good = sum(row.get(name, 0) for name, row in right.items())
    return {
        "correct": good / total, "correct_of_routed": good / max(routed, 1), "abstain_far": _abstained(other),
        "abstain_near": _abstained(near), "fit_seconds": fit_seconds,
        **_latency(router, [text for name in names for text in sets[name][:TESTED]][:300]),
    }  # fmt: skip


def _abstained(found: dict[str, dict[str, int]]) -> float:
    rows = list(found.values())
    return sum(row.get("", 0) for row in rows) / max(1, sum(sum(row.values()) for row in rows))


def _latency(router: CentroidRouter, texts: list[str]) -> dict[str, float]:
    spent: list[tuple[float, float]] = []
    for text in texts:
        router.embedder.forget()
        began, worked = time.perf_counter(), time.thread_time()
        router.route(Request("chat", AUTO, ({"role": "user", "content": text},)), None)
        spent.append((1e3 * (time.perf_counter() - began), 1e3 * (time.thread_time() - worked)))
    wall, work = ([one[place] for one in spent] for place in (0, 1))
    return {
        "p50_ms": statistics.median(wall), "p90_ms": statistics.quantiles(wall, n=10)[-1],
        "processor_p50_ms": statistics.median(work), "processor_p90_ms": statistics.quantiles(work, n=10)[-1],
    }  # fmt: skip


if __name__ == "__main__":
    main()
