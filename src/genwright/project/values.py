"""Values of a project file: does one fit an annotation, and how are type, bounds and value said to a person."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any


class MismatchError(Exception):
    """A value does not fit; whoever asked knows the key and the line."""


@dataclass(frozen=True)
class Bounds:
    """low <= number <= high, or low < number where `above`. None is no bound."""

    low: float | None = None
    high: float | None = None
    above: bool = False

    def hold(self, number: float) -> bool:
        """Whether a number is inside."""
        if self.low is not None and (number < self.low or (self.above and number == self.low)):
            return False
        return self.high is None or number <= self.high

    def __str__(self) -> str:
        if self.high is not None:
            return f"from {self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"{self.low:g} or more"


def fit(value: Any, annotation: str) -> Any:
    """A TOML value as the annotated type: arrays become tuples, 1 may stand for 1.0. Errors: MismatchError."""
    return _fit(value, _parse(annotation))


def words(annotation: str) -> str:
    """A type for people: "number", "list of texts", ..."""
    return _words(_parse(annotation))


def plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def toml(value: Any) -> str:
    """A value as it would stand in the file."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "nothing" if value is None else str(value)


def _parse(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


def _fit(value: Any, node: ast.expr) -> Any:
    match node:
        case ast.BinOp(left=left, right=right):
            try:
                return _fit(value, left)
            except MismatchError:
                return _fit(value, right)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, *_])):
            if isinstance(value, list):
                return tuple(_fit(inner, item) for inner in value)
        case ast.Subscript(value=ast.Name(id="Literal")):
            if isinstance(value, str) and value in _choices(node):
                return value
        case ast.Name(id="float"):
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        case ast.Name(id="int" | "str" | "bool" as name):
            if type(value) is {"int": int, "str": str, "bool": bool}[name]:
                return value
    raise MismatchError


def _words(node: ast.expr) -> str:
    match node:
        case ast.BinOp(left=left, right=ast.Constant(value=None)):
            return _words(left)
        case ast.BinOp(left=left, right=right):
            return f"{_words(left)}, or {_words(right)}"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, *_])):
            return f"list of {_words(item)}s"
        case ast.Subscript(value=ast.Name(id="dict")):
            return "table of texts"
        case ast.Subscript(value=ast.Name(id="Literal")):
            choices = [json.dumps(choice) for choice in _choices(node)]
            return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        case ast.Name(id=name):
            return {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}[name]
    raise AssertionError(f"a field of a type no project file can have: {ast.unparse(node)}")


def _choices(node: ast.Subscript) -> tuple[str, ...]:
    inside = ast.literal_eval(node.slice)
    return inside if isinstance(inside, tuple) else (inside,)
