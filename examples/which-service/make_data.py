"""Sort what people want of a cloud into the service that does it: the tasks of ../transfer, of fewer services.

    python make_data.py [--services 8] [--rows 80]     # data/services.jsonl

A task in English -> the word after `az` in the command that does it, from the help of the azure-cli wheel. Rows of one command
share a group, so that a command's other examples do not give it away.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=8)
    parser.add_argument("--rows", type=int, default=80, help="most rows of each service")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "services.jsonl")
    options = parser.parse_args()
    transfer: dict[str, Any] = runpy.run_path(str(HERE.parent / "transfer" / "make_data.py"))
    rows = transfer["chosen"](transfer["all_rows"](), options.services, options.rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{options.out}: {len(rows)} tasks of {len({row['label'] for row in rows})} services")


if __name__ == "__main__":
    main()
