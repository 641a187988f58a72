"""Base, own adapter and MultiLoRA on the same held-out rows, field by field.

    python table.py

Reads what `genwright apply` left in each project: the answers to the test rows, and the adapters' files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from genwright.evaluate.metrics import CHRF

HERE = Path(__file__).parent
FIELDS = ("az", "aws", "python", "interface")


def artifact(project: Path, stage: str) -> Path:
    """The newest artifact of a stage. Exits where the project was not applied."""
    latest = project / ".genwright" / "latest" / f"{stage}.json"
    if not latest.exists():
        raise SystemExit(f"{project} has not been applied: run ./demo.sh")
    return project / ".genwright" / "artifacts" / stage / json.loads(latest.read_text())["key"][:16]


def answers(project: Path, rung: str) -> dict[str, tuple[str, str]]:
    """{prompt: (answer, reference)} of a rung on the project's test rows."""
    lines = (artifact(project, "evaluate") / f"predictions-{rung}.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["prompt"]: (row["prediction"], row["reference"]) for row in map(json.loads, lines)}


def score(pairs: dict[str, tuple[str, str]], prompts: set[str]) -> float:
    """Corpus chrF over the rows with these prompts."""
    kept = [pairs[prompt] for prompt in sorted(prompts)]
    return CHRF.corpus([said for said, _ in kept], [wanted for _, wanted in kept])


def megabytes(project: Path) -> float:
    """Of the adapter that the project handed over."""
    return sum(path.stat().st_size for path in (artifact(project, "integrate") / "adapter").iterdir()) / 1e6


def table(folder: Path) -> str:
    """A line for each field."""
    joint = answers(folder / "all", "multilora")
    lines = [f"{'chrF':>10}{'rows':>6}{'base':>8}{'expert':>8}{'multilora':>11}{'MB':>7}"]
    for field in FIELDS:
        base, own = answers(folder / field, "zero-shot"), answers(folder / field, "lora")
        prompts = set(own) & set(joint)
        scores = f"{score(base, prompts):8.1f}{score(own, prompts):8.1f}{score(joint, prompts):11.1f}"
        lines.append(f"{field:>10}{len(prompts):6}{scores}{megabytes(folder / field):7.1f}")
    return "\n".join([*lines, f"{'all':>10}{len(joint):6}{'':27}{megabytes(folder / 'all'):7.1f}"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE)
    print(table(parser.parse_args().folder))


if __name__ == "__main__":
    main()
