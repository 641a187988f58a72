"""What unlearning left, as the tables of the README.

python table.py [--found FILE]        FILE is an unlearn.json; left out, the project's own
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from genwright.cli.unlearn import lines, verdicts
from genwright.project.store import Store

HERE = Path(__file__).parent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--found", type=Path)
    file = parser.parse_args().found or Store(HERE / ".genwright").latest("unlearn") / "unlearn.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    print("| | before | after | never saw them |\n|---|---|---|---|")
    for row in lines(found):
        print(f"| {' | '.join(row)} |")
    print()
    for name, told in verdicts(found):
        print(f"- {name}: {told}")


if __name__ == "__main__":
    main()
