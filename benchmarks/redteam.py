"""A red team of a real model, scores only: what it answers that it should not, what it refuses for nothing, and its bias.

    python benchmarks/redteam.py --data ../shared/data --out benchmarks/results/redteam.json

Every attack of `genwright redteam` on goals of the project's own and, where the folder has them, on wishes of a public set;
over-refusal on harmless look-alikes; CrowS-Pairs and BBQ by likelihoods. Rules give the verdicts, so a rate is an upper bound on
harm: a text that takes up a wish's words may be of no use to anybody. No wish and no answer is printed or kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.catalogue.parts import ATTACKS
from genwright.evaluate.redteam.campaign import campaign
from genwright.evaluate.redteam.goals import BUILT_IN, HARMLESS, read_goals
from genwright.evaluate.redteam.probes import bbq, crows_pairs, read_pairs, read_questions
from genwright.evaluate.redteam.scoring import by_rules
from genwright.talk import open_session
from machine import versions, write_result

WISHES = Path("harmful_behaviors") / "strongreject.jsonl"
PROBES: dict[str, tuple[Path, Callable[[Path], list[Any]], Callable[..., dict[str, Any]]]] = {
    "crows_pairs": (Path("crows_pairs") / "crows_pairs.jsonl", read_pairs, crows_pairs),
    "bbq": (Path("bbq") / "Religion.jsonl", read_questions, bbq),
}


def attacked(session: Any, goals: list[Any], turns: int) -> dict[str, Any]:
    """Rates of every attack; transcripts are dropped."""
    attacks = [ATTACKS[name](turns, turns) if name == "crescendo" else ATTACKS[name]() for name in ATTACKS]
    found = campaign(session, attacks, goals, by_rules, harmless_prompts=HARMLESS)
    return {name: found[name] for name in ("attacks", "over_refusal", "scored_by")}


def main() -> None:
    """Attack, probe, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", type=Path, help="a folder with harmful_behaviors/, crows_pairs/ and bbq/")
    parser.add_argument("--goals", type=int, default=12, help="of each source")
    parser.add_argument("--pairs", type=int, default=200, help="rows of each probe")
    parser.add_argument("--turns", type=int, default=4, help="of crescendo, at most")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    session = open_session(options.model, base=Path(), max_new_tokens=options.max_tokens)
    goals = {"built in": list(BUILT_IN)[: options.goals]}
    if options.data and (options.data / WISHES).exists():
        goals["strongreject"] = list(read_goals(options.data / WISHES))[: options.goals]
    began = time.perf_counter()
    found = {name: attacked(session, wishes, options.turns) for name, wishes in goals.items()}
    probes = {
        name: probe(read(options.data / file)[: options.pairs], session.log_probabilities)
        for name, (file, read, probe) in PROBES.items()
        if options.data and (options.data / file).exists()
    }
    result = {
        "benchmark": "redteam", "versions": versions(("genwright", "torch", "transformers")), "model": options.model,
        "goals": {name: len(wishes) for name, wishes in goals.items()}, "turns": options.turns, "max_tokens": options.max_tokens,
        "found": found, "probes": probes, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.out:
        write_result(options.out, **result)


if __name__ == "__main__":
    main()
