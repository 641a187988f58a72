"""Copy the decoder that ../from-scratch/causal handed over to model/: the base that this example goes on with.

python make_model.py [--project ../from-scratch/causal]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

HERE = Path(__file__).parent


def handed_over(project: Path) -> Path:
    """The newest model of an applied project. Exits where there is none."""
    latest = project / ".genwright" / "latest" / "integrate.json"
    if not latest.exists():
        raise SystemExit(f"{project} has no model yet: run `genwright --project {project} apply`, or ./demo.sh")
    key = json.loads(latest.read_text())["key"][:16]
    return project / ".genwright" / "artifacts" / "integrate" / key / "model"


def main() -> None:
    """Write model/ anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=HERE.parent / "from-scratch" / "causal")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    shutil.copytree(handed_over(options.project), options.out)
    print(f"{options.out}: copied from {options.project}")


if __name__ == "__main__":
    main()
