"""Sort what people want of a cloud into the service that does it: task in English -> group of az commands.

    python make_data.py [--services 12] [--rows 100]     # data/services.jsonl

Tasks and commands are those of ../cloud-commands (the help of the azure-cli wheel): the label is the word after `az`. Of the
largest groups, as many rows each, chosen by the hash of their text. Rows of one command share a group, so that a command's other
examples do not give it away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLOUD = HERE.parent / "cloud-commands" / "make_data.py"

Row = dict[str, str]


def all_rows() -> Iterable[Row]:
    """Every task of the wheel that one command does."""
    cloud: dict[str, Any] = runpy.run_path(str(CLOUD))
    wheel = cloud["fetch"](cloud["WHEELS"]["az"], cloud["cache_folder"]())
    for pair in cloud["unique"](cloud["az_pairs"](wheel)):
        path = cloud["command_path"](pair.command)
        if path != "az":
            yield {"text": pair.instruction, "label": path.split()[1], "group": path}


def chosen(rows: Iterable[Row], services: int, most: int) -> list[Row]:
    """Of the largest services as many rows each, the first by the hash of their text."""
    by_service: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_service[row["label"]].setdefault(row["text"].casefold(), row)
    largest = sorted(by_service, key=lambda name: (-len(by_service[name]), name))[:services]
    first = lambda name: sorted(by_service[name].values(), key=hashed)[:most]
    return sorted((row for name in largest for row in first(name)), key=hashed)


def hashed(row: Row) -> str:
    """An order that depends on nothing but the text."""
    return hashlib.sha256(row["text"].encode()).hexdigest()


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=12)
    parser.add_argument("--rows", type=int, default=100, help="most rows of each service")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "services.jsonl")
    options = parser.parse_args()
    rows = chosen(all_rows(), options.services, options.rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{options.out}: {len(rows)} tasks of {len({row['label'] for row in rows})} services")


if __name__ == "__main__":
    main()
