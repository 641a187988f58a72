"""Raw text to learn a language from: the documentation inside this machine's own Python, or any folder of text.

    python make_data.py                      # data/text.jsonl, from the standard library; downloads nothing
    python make_data.py --folder NOTES       # from every text file below NOTES

A row is {"text": ..., "group": the file it is from}: whole paragraphs up to about 1,200 characters. Sources are parsed with
`ast`, never imported. Same Python, same file.
"""

from __future__ import annotations

import argparse
import ast
import json
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
TEXT_FILES = {".txt", ".md", ".rst", ".py", ".html", ".tex"}
ROW_CHARACTERS = 1200
"""A row ends with the paragraph that fills it: some 350 tokens of a vocabulary of 2,048."""
SHORTEST_ROW = 100


def library_paragraphs(library: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """(file, paragraphs) for each module: what it says of itself, its classes and its functions; and the language's own manual."""
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if name.as_posix() == "pydoc_data/topics.py":
            yield from manual(path)
        elif NOT_THE_LIBRARY.isdisjoint(name.parts):
            yield name.as_posix(), module_paragraphs(path)


def tree_of(path: Path) -> ast.Module:
    """A module's tree, empty where this Python cannot parse it. Odd escapes in strings are not our user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        except SyntaxError:
            return ast.Module([], [])


def module_paragraphs(path: Path) -> Iterator[str]:
    """Each documented object: its first line of code, then what its docstring says."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            says = ast.get_docstring(node)
            if says:
                yield f"{heading(node)}{says.strip()}"


def heading(node: Any) -> str:
    """The line that defines a class or function, or nothing for a module."""
    if isinstance(node, ast.Module):
        return ""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}:\n"
    return f"def {node.name}({ast.unparse(node.args)}):\n"


def manual(path: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """What `help("lists")` prints: each topic of the language reference that Python carries along."""
    values = [node.value for node in tree_of(path).body if isinstance(node, ast.Assign)]
    topics = next((ast.literal_eval(value) for value in values if isinstance(value, ast.Dict)), {})
    for topic, text in sorted(topics.items()):
        yield f"help/{topic}", iter(text.strip().split("\n\n"))


def folder_paragraphs(folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """(file, paragraphs) for each text file below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TEXT_FILES:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield path.relative_to(folder).as_posix(), iter(text.strip().split("\n\n"))


def rows(files: Iterable[tuple[str, Iterator[str]]]) -> Iterator[dict[str, str]]:
    """Whole paragraphs until a row is full; no row holds two files, no text stands in two rows."""
    seen: set[str] = set()
    for name, paragraphs in files:
        row = ""
        for paragraph in paragraphs:
            if paragraph.strip() and paragraph not in seen:
                seen.add(paragraph)
                row += f"{paragraph.rstrip()}\n\n"
            if len(row) >= ROW_CHARACTERS:
                yield {"text": row.strip(), "group": name}
                row = ""
        if len(row) >= SHORTEST_ROW:
            yield {"text": row.strip(), "group": name}


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="text of your own (default: the standard library's documentation)")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "text.jsonl")
    options = parser.parse_args()
    files = (
        folder_paragraphs(options.folder) if options.folder else library_paragraphs(Path(sysconfig.get_path("stdlib")))
    )
    made = list(rows(files))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    size = sum(len(row["text"].encode()) for row in made)
    print(f"{options.out}: {len(made):,} rows from {len({row['group'] for row in made}):,} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
