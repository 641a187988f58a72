"""Every error of the tree is raised somewhere, and some test reads what it says."""

from __future__ import annotations

import ast
import inspect

import pytest

from genwright.base import errors

ABSTRACT = {"GenwrightError"}
"""The root: only its children are raised."""

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.GenwrightError) and name not in ABSTRACT
}


def made(tree: ast.AST) -> set[str]:
    """Names that are called: `raise X(...)`, `return X(...)`."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def read_in_tests(tree: ast.AST) -> set[str]:
    """Errors that a test expects and whose text it reads: `match=`, or a look at the caught value."""
    names: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "pytest.raises" and call.args:
                reads = any(keyword.arg == "match" for keyword in call.keywords) or ".value" in ast.unparse(function)
                names |= {word for word in words_of(call.args[0]) if reads}
    return names


def words_of(node: ast.AST) -> set[str]:
    found = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_error_is_raised(name: str, modules) -> None:
    users = [
        module.name for module in modules if name in made(module.tree) and not module.name.endswith("base/errors.py")
    ]
    assert users, f"{name} is raised nowhere"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_error_is_read_by_a_test(name: str, test_modules) -> None:
    assert any(name in read_in_tests(module.tree) for module in test_modules), f"no test reads the text of {name}"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_error_stands_in_the_drawn_tree(name: str) -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if f" {name} " in f"{line} "]
    assert drawn, f"{name} is not in the docstring of base/errors.py"


def test_the_check_needs_the_text_to_be_read() -> None:
    silent = "def test_a():\n    with pytest.raises(Busy):\n        f()"
    assert not read_in_tests(ast.parse(silent))
    assert read_in_tests(ast.parse(silent.replace("(Busy)", "(Busy, match='x')"))) == {"Busy"}
