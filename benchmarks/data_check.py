"""How much of what is wrong `genwright data check` finds, on labelled sets, and how much of what it finds is wrong.

    python benchmarks/data_check.py --data FOLDER --out benchmarks/results/data_check.json

FOLDER holds pii_synth, surge_toxicity, hate_offensive_tweets, chatterbot_corpus_en, web_text_demo and clickbait. A span counts as
found where a span of its kind overlaps it. Near-duplicates are compared with the exact Jaccard of all pairs.
No row is printed. The rules for phones and crude language were shaped while looking at pii_synth and surge_toxicity.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.data.low_quality import low_quality
from genwright.data.personal import personal
from genwright.data.repeats import THRESHOLD, exact_duplicates, near_duplicates, normalised
from genwright.data.toxic import toxic
from machine import write_result

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IBAN_CODE": "iban", "CREDIT_CARD": "credit-card", "IP_ADDRESS": "ip",
    "US_SSN": "ssn",
}  # fmt: skip


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def measured(hits: int, missed: int, wrong: int) -> dict[str, Any]:
    return {
        "found": hits, "missed": missed, "wrong": wrong, "recall": round(hits / max(1, hits + missed), 3),
        "precision": round(hits / max(1, hits + wrong), 3),
    }  # fmt: skip


def personal_data(path: Path) -> dict[str, Any]:
    hits, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for row in json.loads(path.read_text(encoding="utf-8")):
        told = [
            (KINDS[one["entity_type"]], one["start_position"], one["end_position"])
            for one in row["spans"]
            if one["entity_type"] in KINDS
        ]
        found = [(one.kind, one.start, one.end) for one in personal(row["full_text"])]
        meets = lambda one, other: one[0] == other[0] and one[1] < other[2] and other[1] < one[2]
        for one in told:
            (hits if any(meets(one, other) for other in found) else missed)[one[0]] += 1
        wrong.update(one[0] for one in found if not any(meets(one, other) for other in told))
    kinds = {kind: measured(hits[kind], missed[kind], wrong[kind]) for kind in KINDS.values()}
    return kinds | {"all": measured(hits.total(), missed.total(), wrong.total())}


def toxicity(labelled: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    counts = Counter((told, bool(toxic(text))) for text, told in labelled)
    return measured(counts[True, True], counts[True, False], counts[False, True])


def duplicates(texts: list[str]) -> dict[str, Any]:
    began = time.perf_counter()
    exact = exact_duplicates(texts)
    left = [text for number, text in enumerate(texts) if number not in exact]
    near = set(near_duplicates(left))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    all_pairs = by_all_pairs(left)
    return {
        "rows": len(texts), "exact": len(exact), "near": len(near), "near_by_all_pairs": len(all_pairs),
        "missed": len(all_pairs - near), "wrong": len(near - all_pairs), "seconds": round(seconds, 2),
        "seconds_by_all_pairs": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def by_all_pairs(texts: list[str]) -> set[int]:
    sets = [{text[place : place + 5] for place in range(max(1, len(text) - 4))} for text in map(normalised, texts)]
    kept: list[int] = []
    for number, one in enumerate(sets):
        possible = (
            other
            for other in map(sets.__getitem__, kept)
            if THRESHOLD * max(len(one), len(other)) <= min(len(one), len(other))
        )
        if not any(len(one & other) >= THRESHOLD * len(one | other) for other in possible):
            kept.append(number)
    return set(range(len(sets))) - set(kept)


def text_in(row: dict[str, Any]) -> str:
    return str(row.get("text") or row.get("turns"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    only = lambda name: next(path for path in sorted((options.data / name).glob("*.jsonl")))
    surge = [(row["text"], row["is_toxic"] == "Toxic") for row in rows(only("surge_toxicity"))]
    tweets = [(row["tweet"], row["class"] != "2") for row in rows(only("hate_offensive_tweets"))]
    web = [text_in(row) for row in rows(only("web_text_demo"))]
    result = {
        "personal": personal_data(next((options.data / "pii_synth").glob("*.json"))),
        "toxic": {"surge_toxicity": toxicity(surge), "hate_offensive_tweets": toxicity(tweets)},
        "duplicated": {
            name: duplicates([text_in(row) for row in rows(only(name))[:5000]]) for name in ("chatterbot_corpus_en", "clickbait")
        },
        "low_quality": {"web_text_demo": {"rows": len(web), "found": sum(bool(low_quality(text)) for text in web),
                                          "reasons": Counter(why.split(" of ")[0] for text in web for why in low_quality(text))}},
    }  # fmt: skip
    write_result(options.out, **result)
    print(json.dumps({name: result[name] for name in ("personal", "toxic", "duplicated", "low_quality")}, indent=1))


if __name__ == "__main__":
    main()
