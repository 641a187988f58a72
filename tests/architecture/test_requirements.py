"""What is imported is asked for: a clean machine has nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"genwright", "tests", "benchmarks", "examples"}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions that `pyproject.toml` names, with those of the extras."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {normal(re.match(r"[\w.-]+", line).group()) for line in lines}  # type: ignore[union-attr]


def imported(tree: ast.Module) -> Iterator[str]:
    """The first part of every module that a file imports by a statement or by `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "importorskip")):
            yield from (word.value.split(".")[0] for word in node.args if isinstance(word, ast.Constant))


def undeclared(folder: str, allowed: set[str], beside: Iterable[str] = ()) -> dict[str, set[str]]:
    """Of a folder's files: the modules they import that nobody asked for, but for those `beside` them."""
    known = packages_distributions()
    found: dict[str, set[str]] = {}
    for file in (ROOT / folder).rglob("*.py"):
        for module in set(imported(ast.parse(file.read_text()))) - OURS - set(sys.stdlib_module_names) - set(beside):
            if not {normal(name) for name in known.get(module, [])} & allowed:
                found.setdefault(module, set()).add(str(file.relative_to(ROOT)))
    return found


def test_the_product_imports_what_it_asks_for() -> None:
    extras = set(PROJECT["optional-dependencies"]) - {"dev"}
    assert not undeclared("src", declared(*extras))


def test_the_tests_import_what_make_installs() -> None:
    beside = {file.stem for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")}
    assert not undeclared("tests", declared(*PROJECT["optional-dependencies"]), beside)


def test_what_lm_evals_instructions_import_is_asked_for() -> None:
    assert {"immutabledict", "nltk", "langdetect"} <= declared(*PROJECT["optional-dependencies"])
