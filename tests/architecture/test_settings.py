"""Every key of the project file is read by some code: a key that changes nothing is a lie to its user."""

from __future__ import annotations

import ast

import pytest

from genwright.base.schema import declared
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.project.keys import all_keys

SCHEMA = ("project/spec.py", "project/keys.py", "project/checks.py", "project/explain.py", "project/tables.py")
"""Files that declare and check keys; reading a key there does not count."""


def reads(tree: ast.AST) -> set[tuple[str, str]]:
    """(table, key) of every `spec.table.key`, `table.key`, `getattr(spec.table, literal)`; (table, "*") of `vars(table)`."""
    found: set[tuple[str, str]] = set()
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add((last_name(node.value), node.attr))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and isinstance(node.args[1], ast.Name):
            found |= {(last_name(node.args[0]), name) for name in literals}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "vars" and isinstance(node.args[0], ast.Attribute):
            found.add((last_name(node.args[0]), "*"))
    return found


def last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def tables(key: str) -> tuple[str, str]:
    """("adapt", "steps") of "adapt.steps"; ("budget", "hours") of "scope.budget.hours"."""
    *_, table, name = ["", *key.split(".")]
    return table, name


READ_BY_THE_SCHEMA = {"project.version"}
"""Checked on reading, so that nothing else ever sees another version."""


def project_keys() -> list[str]:
    """The keys of the tables; a part's own settings are looked for in its class."""
    methods = tuple(f"adapt.{name}." for name in (*ADAPTERS, *OBJECTIVES))
    return sorted(key for key in all_keys() if not key.startswith(methods) and key not in READ_BY_THE_SCHEMA)


def part_keys() -> list[tuple[str, str, str]]:
    """(part, the class's file, field) of every adapter and objective."""
    parts = {**ADAPTERS.paths, **OBJECTIVES.paths}
    return [(name, path.partition(":")[0], field.name) for name, path in parts.items() for field in declared(path)[1]]


@pytest.fixture(scope="module")
def read(modules) -> set[tuple[str, str]]:
    return set().union(*(reads(module.tree) for module in modules if not module.name.endswith(SCHEMA)))


@pytest.mark.parametrize("key", project_keys())
def test_key_is_read(key: str, read: set[tuple[str, str]]) -> None:
    table, name = tables(key)
    assert {(table, name), (table, "*")} & read, f"nothing reads {key}"


@pytest.mark.parametrize(("part", "path", "field"), part_keys())
def test_a_parts_key_is_read(part: str, path: str, field: str, modules) -> None:
    """Its own settings are fields of its class, read from itself, by its base class, or by the layout of its objective."""
    room = path.rpartition(".")[0].replace(".", "/")
    readers = [module for module in modules if module.name.startswith(f"src/{room}/") or "/data/layouts" in module.name]
    found = set().union(*(reads(module.tree) for module in readers))
    assert {("self", field), ("objective", field)} & found, f"nothing reads adapt.{part}.{field}"


def test_the_check_sees_a_key_that_nothing_reads() -> None:
    tree = ast.parse(
        "def f(spec):\n    adapt = spec.adapt\n    return adapt.steps, spec.data.train, spec.scope.budget.hours"
    )
    assert {("adapt", "steps"), ("data", "train"), ("budget", "hours")} <= reads(tree)
    assert ("adapt", "epochs") not in reads(tree)
