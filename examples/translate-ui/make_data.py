"""English texts of a program's interface and their French translations, from the compiled catalogues in Django's wheel.

    python make_data.py                          # data/ui.jsonl

Of texts with plural forms the singular is taken; of a text that has several meanings, the first. Equal English texts share a group,
so that none is both learned and asked.
"""

from __future__ import annotations

import argparse
import gettext
import io
import json
import runpy
import zipfile
from collections.abc import Iterable, Iterator, Mapping
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


def pairs(catalogue: Mapping[Any, str]) -> Iterator[tuple[str, str]]:
    """A compiled catalogue's texts: its keys are a text, "meaning\\x04text", or (singular, number of the form)."""
    for key, said in catalogue.items():
        text, form = key if isinstance(key, tuple) else (key, 0)
        text = text.rpartition("\x04")[2]
        if text and form == 0 and text != said:
            yield text, said


def french() -> Iterator[tuple[str, str]]:
    """Texts with translations, from the wheel that ../experts reads."""
    experts: dict[str, Any] = runpy.run_path(str(HERE.parent / "experts" / "make_data.py"))
    with zipfile.ZipFile(experts["CLOUD"]["fetch"](experts["DJANGO"], experts["CLOUD"]["cache_folder"]())) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith("/locale/fr/LC_MESSAGES/django.mo"):
                yield from pairs(gettext.GNUTranslations(io.BytesIO(wheel.read(name)))._catalog)  # type: ignore[attr-defined]


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
