"""What a dataclass declares, read from its source and so without importing it.

A frozen dataclass is the constants of an equation, the keys of a project file and the options of a command, all at
once. Its fields' meaning stands in the docstring under each field, which Python does not keep: so we read the source.
That also lets the project file be checked without torch, although the objectives and adapters need it.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REQUIRED = object()
"""The default of a field that has none."""


@dataclass(frozen=True)
class Field:
    """One declared field: `type` is the annotation as written, e.g. "float" or "tuple[str, ...] | None"."""

    name: str
    type: str
    default: Any
    doc: str


@cache
def declared(path: str) -> tuple[str, tuple[Field, ...]]:
    """("docstring", fields) of the class behind "module:Class", in order. Defaults must be literals."""
    module, _, name = path.partition(":")
    node = _class_node(_source(module), name)
    fields = tuple(
        _field(statement, node.body[index + 1] if index + 1 < len(node.body) else None)
        for index, statement in enumerate(node.body)
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar")
    )
    return ast.get_docstring(node) or "", fields


def _source(module: str) -> str:
    """Find a module's file by walking from the package, so that no parent `__init__` but ours is run."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"no package {package}"
    base = Path(spec.origin).parent.joinpath(*rest)
    file = base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"
    return file.read_text(encoding="utf-8")


def _class_node(source: str, name: str) -> ast.ClassDef:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise AssertionError(f"no class {name} in the module it is registered in")


def _field(statement: ast.AnnAssign, following: ast.stmt | None) -> Field:
    assert isinstance(statement.target, ast.Name)
    default = REQUIRED if statement.value is None else ast.literal_eval(statement.value)
    return Field(statement.target.id, ast.unparse(statement.annotation), default, _doc(following))


def _doc(following: ast.stmt | None) -> str:
    if (
        isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    ):
        return " ".join(following.value.value.split())
    return ""
