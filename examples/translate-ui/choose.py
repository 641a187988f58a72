"""Which tokenizer, size, dropout and rate: each is trained for some epochs and scored on validation rows; the test rows are not read.

    python choose.py --genwright ../../.venv/bin/genwright [--epochs 40] [--only NUMBER ...]

Prints a table: chrF on a fifth of the rows, which are held out from training for this alone, and the time to train.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
USUAL = {"vocabulary": 1024, "width": 160, "layers": 3, "dropout": 0.1, "rate": 3e-3}
VARIANTS: tuple[dict[str, float], ...] = (
    {}, {"dropout": 0.2}, {"vocabulary": 512}, {"vocabulary": 512, "dropout": 0.3}, {"width": 256}, {"layers": 2}, {"rate": 1.5e-3},
)  # fmt: skip
"""What differs from USUAL."""


def tried(variant: dict[str, float], epochs: int, genwright: str) -> str:
    """Train one variant in a folder of its own; its line of the table."""
    own = USUAL | variant
    with tempfile.TemporaryDirectory(prefix="translate-ui-") as name:
        project = Path(name)
        shutil.copy(HERE / "genwright.toml", project)
        shutil.copytree(HERE / "data", project / "data")
        size = [word for key in ("vocabulary", "width", "layers", "dropout") for word in (f"--{key}", str(own[key]))]
        made = ["--data", str(project / "data" / "ui.jsonl"), "--out", str(project / "model")]
        subprocess.run([sys.executable, str(HERE / "make_model.py"), *made, *size], check=True, capture_output=True)
        changes = (f"adapt.epochs={epochs}", f"adapt.learning_rate={own['rate']}", "data.validation_fraction=0.2")
        words = [word for change in changes for word in ("--set", change)]
        done = subprocess.run(
            [genwright, "--project", name, "apply", "--until", "adapt", "--json", *words],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 3):
            raise SystemExit(done.stderr)
        rung = json.loads(done.stdout)["summaries"]["adapt"]["rungs"][0]
    score, seconds = rung["score"], rung["measured"]["train_seconds"]
    told = (
        ", ".join(f"{key} {value:g}" for key, value in variant.items()) or "as make_model.py and genwright.toml have it"
    )
    return f"| {told} | {score['value']:.1f} ({score['low']:.1f} to {score['high']:.1f}) | {seconds:.0f} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genwright", default="genwright", help="the command")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of variants, from 0")
    options = parser.parse_args()
    print("| variant | chrF on validation rows | time to train |")
    print("|---|---|---|", flush=True)
    for number, variant in enumerate(VARIANTS):
        if options.only is None or number in options.only:
            print(tried(variant, options.epochs, options.genwright), flush=True)


if __name__ == "__main__":
    main()
