"""English texts of a program's interface and their French translations, from the compiled catalogues in Django's wheel.

    python make_data.py                          # data/ui.jsonl

As ../experts reads them; texts with plural forms are left out. Equal English texts share a group, so that none is both learned
and asked.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST = 120
"""Characters of a text and of its translation."""

Row = dict[str, str]


def chosen(rows: Iterable[tuple[str, str]]) -> list[Row]:
    """Short pairs, the first translation of each text, in the order of the texts."""
    pairs: dict[str, str] = {}
    for text, said in rows:
        if 1 < len(text) <= LONGEST and said.strip() and len(said) <= LONGEST:
            pairs.setdefault(text.strip(), said.strip())
    return [{"prompt": text, "completion": pairs[text], "group": text.casefold()} for text in sorted(pairs)]


def french() -> Iterable[tuple[str, str]]:
    """Texts with translations, as the wheel has them."""
    experts: dict[str, Any] = runpy.run_path(str(HERE.parent / "experts" / "make_data.py"))
    return ((row["group"], row["completion"]) for row in experts["translations"]("fr"))


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "data" / "ui.jsonl")
    options = parser.parse_args()
    rows = chosen(french())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{options.out}: {len(rows)} texts")


if __name__ == "__main__":
    main()
