"""Rows for `genwright apply` here: what data.py takes out of the packages, one turn a row, to data/turns.jsonl. Prints counts alone.

    python make_data.py [--rows 450] [--measured FILE:FIELD ...]

Without the twins of AdvBench, HarmBench and the sets that `--measured` names: they are for measuring.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from twins import clean, measured

from data import ordinary, sources
from genwright.models.sources import cache_folder
from genwright.serve.background import TOPICS
from genwright.serve.embed import packaged_embedder

HERE = Path(__file__).parent
OURS = ("pairs", "commands", "people")
END = 110
"""Characters of each end of a long text: about as many as the served encoder reads."""


def main() -> None:
    """Write the rows; a set of ordinary questions is one group, so that it is in one split only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=450, help="most rows of a source")
    parser.add_argument(
        "--measured", nargs="*", default=[], metavar="FILE:FIELD", help="sets of JSON rows to keep clear of"
    )
    parser.add_argument("--cache", type=Path, default=cache_folder() / "wheels")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "turns.jsonl")
    options = parser.parse_args()
    sets = measured(options.cache, options.measured)
    kinds = clean(sources(options.cache, list(TOPICS)), sets, packaged_embedder())
    rows = labelled(kinds, ordinary(options.cache), options.rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{options.out}: {len(rows)} turns")


def labelled(kinds: dict[str, dict[str, list[str]]], sets: dict[str, list[str]], most: int) -> list[dict[str, str]]:
    """At most `most` rows of a source, four times as many of the ordinary questions, in a fixed random order.

    Harmful rows are the fewest, and our pairs the hardest: all of these are kept.
    """
    rng = random.Random(0)
    asked = [
        {"text": ends(text), "label": "harmless", "group": name} for name, some in sorted(sets.items()) for text in some
    ]
    found = rng.sample(asked, min(4 * most, len(asked)))
    for label, of_label in sorted(kinds.items()):
        for name, texts in sorted(of_label.items()):
            whole = label == "harmful" or name in OURS
            some = texts if whole else rng.sample(texts, min(most, len(texts)))
            found += [
                {"text": ends(text), "label": label, "group": f"{name} {number}"} for number, text in enumerate(some)
            ]
    return once(rng.sample(found, len(found)))


def once(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each text once, whatever its case and spaces: sources borrow from each other."""
    return list({" ".join(row["text"].lower().split()): row for row in rows}.values())


def ends(text: str) -> str:
    """A long text's first and last `END` characters."""
    return text if len(text) <= 2 * END else f"{text[:END]} {text[-END:]}"


if __name__ == "__main__":
    main()
