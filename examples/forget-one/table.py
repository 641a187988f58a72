"""What unlearning left, as the tables of the README.

python table.py [--found unlearned/unlearn.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from genwright.cli.unlearn import lines, verdicts

HERE = Path(__file__).parent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--found", type=Path, default=HERE / "unlearned" / "unlearn.json")
    found = json.loads(parser.parse_args().found.read_text(encoding="utf-8"))
    print("| | before | after | never saw them |\n|---|---|---|---|")
    for row in lines(found):
        print(f"| {' | '.join(row)} |")
    print()
    for name, told in verdicts(found):
        print(f"- {name}: {told}")


if __name__ == "__main__":
    main()
