"""Build function -> summary pairs from the Python standard library of this very machine. Downloads nothing.

    python make_data.py [--rows 1000]        # data/summaries.jsonl

The sources are parsed with `ast`, never imported. A row's prompt is a function's signature, its completion the first
line of the docstring, its group the function's name: methods that every class has (`close`, `update`) stay together.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent

NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}


def main() -> None:
    """Write the rows, chosen and ordered by the hash of their content."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=HERE / "data" / "summaries.jsonl")
    options = parser.parse_args()
    rows = {row["prompt"]: row for row in library_rows(Path(sysconfig.get_path("stdlib")))}
    chosen = sorted(rows.values(), key=lambda row: hashlib.sha256(row["prompt"].encode()).hexdigest())[: options.rows]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen), encoding="utf-8")
    print(f"{options.out}: {len(chosen)} of {len(rows)} functions")


def library_rows(library: Path) -> Iterator[dict[str, str]]:
    """A row for every function with a one-line summary, file by file in the order of their names."""
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if NOT_THE_LIBRARY.isdisjoint(name.parts):
            yield from module_rows(path.read_text(encoding="utf-8", errors="replace"), name.as_posix())


def module_rows(source: str, name: str) -> Iterator[dict[str, str]]:
    """The rows of one module; a file that this Python cannot parse has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in somebody else's strings
            tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            summary = (ast.get_docstring(node) or "").strip().partition("\n")[0]
            if 15 <= len(summary) <= 80:
                yield {
                    "prompt": f"{node.name}({ast.unparse(node.args)})",
                    "completion": summary,
                    "group": node.name,
                    "source": name,
                }


if __name__ == "__main__":
    main()
