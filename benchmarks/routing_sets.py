"""Sets of texts, one an expert, from a folder of public data: what benchmarks/router.py routes. Reads only; ships nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

EACH = 120

FIELDS = {
    "gsm8k/test.jsonl": "question", "wikisql/wikisql_10000.jsonl": "question", "nl2bash/pairs.jsonl": "instruction",
    "sentence_polarity/sentences.jsonl": "text", "mbpp/mbpp.jsonl": "text", "self_instruct/seed_tasks.jsonl": "instruction",
    "boolq/boolq_dev_subset.jsonl": "question", "clickbait/headlines.jsonl": "text", "tofu/forget10.jsonl": "question",
    "po_translation/en-de.jsonl": "en",
}  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    """A JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _asked(row: dict[str, Any]) -> str:
    """A question with its options, as it is put to a model."""
    return "\n".join(
        [row["centerpiece"], *(f"{letter}. {option}" for letter, option in zip("ABCDEFGH", row["options"]))]
    )


def texts_by_set(data: Path) -> dict[str, list[str]]:
    """Name -> up to `EACH` different texts, in a fixed random order. Sets with fewer than 60 are left out."""
    found: dict[str, list[str]] = {}
    for row in lines(data / "bbh" / "bbh.jsonl"):
        found.setdefault(f"bbh:{row['task']}", []).append(row["input"])
    for row in lines(data / "mcq_bench" / "mmlu.test.jsonl"):
        found.setdefault(f"mmlu:{row['subject']}", []).append(_asked(row))
    for row in lines(data / "banking77" / "train.jsonl"):
        found.setdefault("banking", []).append(row["text"])
        found.setdefault(f"intent:{row['category']}", []).append(row["text"])
    for name, field in FIELDS.items():
        found[name.split("/")[0]] = [str(row[field]) for row in lines(data / name) if row.get(field)]
    rng, out = random.Random(0), {}
    for name in sorted(found):
        texts = sorted(set(found[name]))
        rng.shuffle(texts)
        if len(texts) >= 60:
            out[name] = texts[:EACH]
    return out
