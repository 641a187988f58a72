"""Rows for `genwright apply` here: what data.py takes out of the packages, one turn a row, to data/turns.jsonl. Prints counts alone.

python make_data.py [--rows 900]
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from data import ordinary, training_rows
from genwright.models.sources import cache_folder
from genwright.serve.background import TOPICS

HERE = Path(__file__).parent


def main() -> None:
    """Write the rows; of each label as many, and a set of ordinary questions is one group, so that it is in one split only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=900, help="most rows of each label")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "wheels")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "turns.jsonl")
    options = parser.parse_args()
    rows = labelled(training_rows(options.cache, list(TOPICS)), ordinary(options.cache), options.rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{options.out}: {len(rows)} turns")


def labelled(kinds: dict[str, list[str]], sets: dict[str, list[str]], most: int) -> list[dict[str, str]]:
    """At most `most` rows of a label, in a fixed random order; of the harmless ones half are ordinary questions."""
    rng = random.Random(0)
    found = []
    for label, texts in sorted(kinds.items()):
        single = [{"text": text, "label": label, "group": f"{label} {number}"} for number, text in enumerate(texts)]
        asked = [{"text": text, "label": label, "group": name} for name, some in sorted(sets.items()) for text in some]
        asked = rng.sample(asked, min(most // 2, len(asked))) if label == "harmless" else []
        found += asked + rng.sample(single, min(most - len(asked), len(single)))
    return rng.sample(found, len(found))


if __name__ == "__main__":
    main()
