"""Domain text mixed with general text at a stated share, and held-out text of each kind.

    python make_data.py --domain-share 0.75

The domain is the prose of the Azure command line's help, from the wheel that ../cloud-commands reads. The general text is what
the base model learned from: the training rows of ../from-scratch/causal; its test rows judge what is forgotten. Writes
data/train.jsonl, data/domain-test.jsonl and data/general-test.jsonl. Shares are of bytes; same files, same result.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CLOUD = HERE.parent / "cloud-commands" / "make_data.py"
GENERAL = HERE.parent / "from-scratch" / "causal"

ROW_CHARACTERS = 1200
HELD_OUT = 0.1
"""Share of the domain's files that no training row is from."""

Row = dict[str, str]


def domain_rows() -> Iterator[Row]:
    """The help texts of az, file by file: each command with what is said of it and of its options."""
    cloud = runpy.run_path(str(CLOUD))
    wheel = cloud["fetch"](cloud["WHEELS"]["az"], cloud["cache_folder"]())
    for name, source in cloud["texts"](wheel, r"(^|/)_help\.py$"):
        yield from packed(name, help_texts(cloud["parse"](source)))


def help_texts(tree: ast.Module) -> Iterator[str]:
    """What `helps['vm create'] = "yaml"` says, for each such line of a module, as paragraphs."""
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("helps[")):
            continue
        try:
            document = yaml.safe_load(ast.literal_eval(node.value))
            command = ast.literal_eval(node.targets[0].slice)  # type: ignore[attr-defined]
        except (yaml.YAMLError, ValueError):
            continue  # a handful of upstream texts are not YAML
        if isinstance(document, dict):
            yield "\n".join([f"az {command}", *summaries(document)])


def summaries(document: dict[str, Any]) -> Iterator[str]:
    """The short and the long summary of a command, then of its parameters."""
    yield from (str(document[key]).strip() for key in ("short-summary", "long-summary") if document.get(key))
    for parameter in document.get("parameters") or []:
        if isinstance(parameter, dict) and parameter.get("short-summary"):
            yield f"{parameter.get('name')}: {parameter['short-summary']}".strip()


def packed(name: str, paragraphs: Iterable[str]) -> Iterator[Row]:
    """Whole paragraphs until a row is full; no row holds two files."""
    text = ""
    for paragraph in paragraphs:
        text += f"{paragraph}\n\n"
        if len(text) >= ROW_CHARACTERS:
            yield {"text": text.strip(), "group": name}
            text = ""
    if text:
        yield {"text": text.strip(), "group": name}


def read(path: Path) -> list[Row]:
    """Rows of a JSONL file; only their text and group are kept."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"text": row["text"], "group": row.get("group") or ""} for row in rows]


def write(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def chance(text: str) -> float:
    """A number between 0 and 1 that depends on nothing but a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def size(rows: Iterable[Row]) -> int:
    """Bytes of text."""
    return sum(len(row["text"].encode()) for row in rows)


def mixed(domain: list[Row], general: list[Row], share: float) -> list[Row]:
    """All domain rows, and general rows until the domain's share of all bytes is `share`; in an order of chance."""
    wanted, taken = size(domain) * (1 - share) / share, []
    for row in sorted(general, key=lambda row: chance(row["text"])):
        if size(taken) + size([row]) / 2 > wanted:
            break
        taken.append(row)
    return sorted([*domain, *taken], key=lambda row: chance(f"mix {row['text']}"))


def rows_of_project(project: Path, split: str) -> Path:
    """A split of an applied project, by its newest scope. Exits where the project was not applied."""
    latest = project / ".genwright" / "latest" / "scope.json"
    if not latest.exists():
        raise SystemExit(f"{project} has not been applied: run `genwright --project {project} apply`, or ./demo.sh")
    key = json.loads(latest.read_text())["key"][:16]
    return project / ".genwright" / "artifacts" / "scope" / key / f"{split}.jsonl"


def main() -> None:
    """Write the three files and say what the mixture is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain-share", type=float, default=0.75, help="of all training bytes; 1 mixes nothing in")
    parser.add_argument("--domain", type=Path, help="JSONL with text of your own domain (default: the help of az)")
    parser.add_argument(
        "--general", type=Path, help="JSONL of text to remember (default: ../from-scratch's training rows)"
    )
    parser.add_argument("--general-test", type=Path, help="JSONL that judges it (default: ../from-scratch's test rows)")
    parser.add_argument("--out", type=Path, default=HERE / "data")
    options = parser.parse_args()
    domain = read(options.domain) if options.domain else list(domain_rows())
    general = read(options.general or rows_of_project(GENERAL, "train"))
    held_out = [row for row in domain if chance(row["group"] or row["text"]) < HELD_OUT]
    train = [row for row in domain if chance(row["group"] or row["text"]) >= HELD_OUT]
    mixture = mixed(train, general, options.domain_share)
    write(options.out / "train.jsonl", mixture)
    write(options.out / "domain-test.jsonl", held_out)
    write(options.out / "general-test.jsonl", read(options.general_test or rows_of_project(GENERAL, "test")))
    share = size(train) / size(mixture)
    print(
        f"{options.out}/train.jsonl: {size(mixture) / 1e6:.2f} MB, {share:.1%} domain ({len(train)} of {len(mixture)} rows)"
    )
    print(f"held out: {len(held_out)} domain rows")


if __name__ == "__main__":
    main()
