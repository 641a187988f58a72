"""Four small fields of knowledge, each for an adapter of its own, and all of them for one MultiLoRA. Everything is from packages.

    python make_data.py [--rows 320]         # data/{az,aws,python,interface,all}.jsonl

az, aws: English task -> command, from the wheels that ../cloud-commands reads. python: a function of this machine's standard
library -> what it does, as ../smallest reads it. interface: English -> German texts of Django's interface, from the compiled
catalogues in its wheel. A row's group begins with its field, so a row is held out in its field's project and in all's alike.
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import io
import json
import runpy
import sysconfig
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLOUD: dict[str, Any] = runpy.run_path(str(HERE.parent / "cloud-commands" / "make_data.py"))
SMALLEST: dict[str, Any] = runpy.run_path(str(HERE.parent / "smallest" / "make_data.py"))

DJANGO = CLOUD["Wheel"](
    "django", "5.2.19", "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00", "BSD-3-Clause"
)
LONGEST = 110
"""Characters of an answer."""

Row = dict[str, str]


def commands(tool: str) -> Iterator[Row]:
    """Tasks and commands of one cloud's help."""
    wheel = CLOUD["fetch"](CLOUD["WHEELS"][tool], CLOUD["cache_folder"]())
    for pair in CLOUD["unique"](CLOUD["READERS"][tool](wheel)):
        yield {key: CLOUD["row"](pair, tool)[key] for key in ("prompt", "completion", "group")}


def functions() -> Iterator[Row]:
    """Signatures and summaries of the standard library's functions."""
    for row in SMALLEST["library_rows"](Path(sysconfig.get_path("stdlib"))):
        prompt = f"Say in one line what this Python function does.\n{row['prompt']}"
        yield {"prompt": prompt, "completion": row["completion"], "group": row["group"]}


def translations(language: str = "de") -> Iterator[Row]:
    """Texts of Django's interface with their translations; those with two plural forms or placeholders only are left out."""
    with zipfile.ZipFile(CLOUD["fetch"](DJANGO, CLOUD["cache_folder"]())) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(f"/locale/{language}/LC_MESSAGES/django.mo"):
                catalogue = gettext.GNUTranslations(io.BytesIO(wheel.read(name)))._catalog  # type: ignore[attr-defined]
                for text, said in catalogue.items():
                    if isinstance(text, str) and text and "\x04" not in text and text != said:
                        prompt = f"Translate this text of a program's interface to German.\nText: {text}"
                        yield {"prompt": prompt, "completion": said, "group": text}


FIELDS: dict[str, Callable[[], Iterable[Row]]] = {
    "az": lambda: commands("az"),
    "aws": lambda: commands("aws"),
    "python": functions,
    "interface": translations,
}


def chosen(field: str, rows: Iterable[Row], most: int) -> list[Row]:
    """Short rows with different prompts, the first by the hash of the prompt; groups are named after the field."""
    short = {row["prompt"]: row for row in rows if row["completion"] and len(row["completion"]) <= LONGEST}
    first = sorted(short.values(), key=lambda row: hashlib.sha256(row["prompt"].encode()).hexdigest())[:most]
    return [{**row, "group": f"{field}: {row['group']}"} for row in first]


def write(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write a file for each field, and one with all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=320, help="of each field")
    parser.add_argument("--out", type=Path, default=HERE / "data")
    options = parser.parse_args()
    rows = {field: chosen(field, read(), options.rows) for field, read in FIELDS.items()}
    for field, own in rows.items():
        write(options.out / f"{field}.jsonl", own)
        print(f"{options.out / field}.jsonl: {len(own)} rows")
    write(options.out / "all.jsonl", (row for own in rows.values() for row in own))


if __name__ == "__main__":
    main()
