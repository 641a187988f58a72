"""Every number that prices time and energy, as the code has it, into docs/plan-time.md: its name, its value, what its docstring says.

    python benchmarks/plan_constants.py            # writes the table between its marks

The table is read from the source, so that no constant can be left out of it; a test holds the page to it.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "plan-time.md"
MODULES = (
    "priced.speeds", "priced.step_time", "priced.as_run", "priced.collectives", "priced.energy", "serving_ops", "serving", "whole_run",
)  # fmt: skip
MARKS = ("<!-- constants -->\n", "<!-- end of constants -->\n")
UNITS = ("GIB", "PFS_DAY")
"""Names that are only other words for a number."""


def constants(module: str) -> Iterator[tuple[str, Any, str]]:
    """(name, value, first sentence of its docstring) of each number, or table of numbers, at a module's top."""
    code = importlib.import_module(f"genwright.plan.{module}")
    body = ast.parse(Path(str(code.__file__)).read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.Assign) and _has_numbers(node.value):
            said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            names = [one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            yield from ((name, getattr(code, name), _sentence(str(said))) for name in names if name not in UNITS)


def _has_numbers(node: ast.expr) -> bool:
    return any(isinstance(one, ast.Constant) and isinstance(one.value, (int, float)) for one in ast.walk(node))


def _sentence(text: str) -> str:
    first = re.split(r"(?<! al)\. ", " ".join(text.split()).replace("|", "/"))[0].rstrip(".")
    return first or "no source is stated"


def shown(value: Any) -> str:
    """A number or a table of them, in few characters.

    >>> shown({"ada": 6.4e7, "hopper": 0.5}), shown(((256, 1.0), (64, 0.7))), shown((8, 2048))
    ('ada 64,000,000, hopper 0.5', '(256, 1), (64, 0.7)', '8, 2048')
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inner(one)}" for name, one in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_inner, value))
    return f"{value:,.0f}" if abs(value) >= 1e5 and value < 1e12 else f"{value:g}"


def _inner(value: Any) -> str:
    return f"({shown(value)})" if isinstance(value, tuple) else shown(value)


def table() -> str:
    """The page's block, without its marks."""
    rows = [
        f"| `{module}.{name}` | {shown(value)} | {said} |"
        for module in MODULES
        for name, value, said in constants(module)
    ]
    return "\n".join(["| constant | value | what the code says of it |", "|---|---|---|", *rows]) + "\n"


def main() -> None:
    """Write the page anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    PAGE.write_text(before + MARKS[0] + table() + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")


if __name__ == "__main__":
    main()
