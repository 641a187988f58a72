"""Calls of functions: is each call one that the tools' schemas allow, and is it the one that was wanted?

A row has `prompt`, `tools` (schemas: {"name", "parameters"} or OpenAI's {"type": "function", "function": ...}) and `calls`, what is
wanted: {NAME: {PARAMETER: [each value that is right, "" where it may be left out]}}, as BFCL writes it; an empty list where
no call is right. Several calls may come in any order.

An answer is read as JSON ({"name", "arguments"}, a list of them, or fenced) or as Python calls (`f(a=1)`), of which only
literals are taken: nothing is evaluated.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from genwright.base.errors import MissingExtra
from genwright.evaluate.asking import WRITTEN, conversation_of
from genwright.evaluate.coding import code_in
from genwright.evaluate.forms import Form, Options, Row, Scored, Target

Call = tuple[str, dict[str, Any]]
"""A name and its arguments."""

TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}
"""BFCL's words for JSON schema's."""


def calls_in(answer: str) -> list[Call]:
    """The calls that an answer makes; an answer that is neither JSON nor calls makes none."""
    text = code_in(answer).strip()
    text = re.sub(r"</?tool_call>", "\n", text).strip()
    for candidate in (text, *re.findall(r"\{.*\}|\[.*\]", text, re.DOTALL)):
        try:
            return [call for one in _listed(json.loads(candidate)) if (call := _from_json(one))]
        except (ValueError, RecursionError):
            continue
    lines = [call for line in text.splitlines() if (call := _json_line(line))]
    return lines or _from_python(text)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), list):
        return list(value["tool_calls"])
    return value if isinstance(value, list) else [value]


def _json_line(line: str) -> Call | None:
    try:
        return _from_json(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _from_json(one: Any) -> Call | None:
    one = one.get("function", one) if isinstance(one, Mapping) else {}
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
        return None
    arguments = one.get("arguments", one.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return None
    return (one["name"], dict(arguments)) if isinstance(arguments, Mapping) else None


def _from_python(text: str) -> list[Call]:
    try:
        body = ast.parse(text.strip().strip("`"), mode="exec").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    for statement in body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        for node in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
            if isinstance(node, ast.Call) and (call := _from_node(node)):
                found.append(call)
    return found


def _from_node(node: ast.Call) -> Call | None:
    try:
        arguments = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
    except ValueError:
        return None
    return None if node.args else (ast.unparse(node.func), arguments)


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> JSON schema of its arguments."""
    bare = [tool.get("function", tool) for tool in tools]
    return {tool["name"]: _schema(tool.get("parameters") or {"type": "object"}) for tool in bare}


def _schema(given: Any) -> Any:
    if isinstance(given, list):
        return [_schema(one) for one in given]
    if not isinstance(given, Mapping):
        return given
    made = {key: _schema(value) for key, value in given.items() if key not in ("default", "optional")}
    if isinstance(given.get("type"), str):
        made["type"] = TYPES.get(given["type"], given["type"])
        if made["type"] is None:
            del made["type"]
    return made


def allowed(call: Call, schemas: Mapping[str, Any]) -> bool:
    """Whether a tool of that name takes these arguments and no others. Errors: MissingExtra."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
    except ImportError:
        raise MissingExtra("jsonschema", "judge", "Checking calls by schema") from None
    schema = schemas.get(call[0])
    if schema is None:
        return False
    known = schema.get("properties", {})
    try:
        return set(call[1]) <= set(known) and bool(Draft202012Validator(schema).is_valid(call[1]))
    except SchemaError:
        return False


def wanted_call(call: Call, wanted: Mapping[str, Mapping[str, Sequence[Any]]]) -> bool:
    """Whether a call is the wanted one: its name, every argument one of those that are right, none too many."""
    ((name, arguments),) = wanted.items()
    if call[0] != name or set(call[1]) - set(arguments):
        return False
    return all(_right(call[1], key, right) for key, right in arguments.items())


def _right(given: Mapping[str, Any], key: str, right: Sequence[Any]) -> bool:
    """No right value at all: it is left out, or empty."""
    if key not in given:
        return not right or "" in right
    return any(same(given[key], value) for value in right) or (not right and not given[key])


def same(given: Any, wanted: Any) -> bool:
    """Equal; texts without case, spaces and punctuation, as BFCL compares them; whole numbers equal to the same floats."""
    if isinstance(given, str) and isinstance(wanted, str):
        return _bare(given) == _bare(wanted)
    if isinstance(given, bool) != isinstance(wanted, bool):
        return False
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(given, Mapping) and isinstance(wanted, Mapping):
        right = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
        return wanted_call(("", dict(given)), {"": right})
    return bool(given == wanted)


def _bare(text: str) -> str:
    return re.sub(r"[ ,./\-_*^'\"]", "", text).lower()


def all_wanted(calls: Sequence[Call], wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Each wanted call made once, in any order, and no other."""
    left = list(calls)
    for one in wanted:
        found = next((call for call in left if wanted_call(call, one)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


SYSTEM = """You may call these functions: {tools}
Reply with a JSON list of calls alone: [{{"name": ..., "arguments": {{...}}}}], or with [] where none is right."""


def call_functions(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """100 where the calls are those wanted (`right`), or where the schemas allow each call (`valid`)."""
    asked = [
        [{"role": "system", "content": SYSTEM.format(tools=json.dumps(row["tools"]))}, *conversation_of(row["prompt"])]
        for row in rows
    ]
    answers = target.reply(asked, options)
    made = [calls_in(answer) for answer in answers]
    found = {
        "right": [100.0 * all_wanted(calls, row["calls"]) for calls, row in zip(made, rows)],
        "valid": [
            100.0 * all(allowed(call, schemas_of(row["tools"])) for call in calls) for calls, row in zip(made, rows)
        ],
    }
    other = "valid" if options.metric == "right" else "right"
    return Scored(found[options.metric], answers, {other: sum(found[other]) / len(rows)})


def _wrong(row: Row) -> str:
    named = [tool.get("function", tool) for tool in row["tools"] if isinstance(tool, Mapping)]
    if len(named) != len(row["tools"]) or not all(isinstance(tool.get("name"), str) for tool in named):
        return "each of 'tools' needs a name."
    if not all(
        isinstance(one, Mapping) and len(one) == 1 and isinstance(next(iter(one.values())), Mapping)
        for one in row["calls"]
    ):
        return "each of 'calls' is one {NAME: {PARAMETER: [right values]}}."
    return ""


CALLS = Form(
    "calls", {"prompt": (str, list), "tools": list, "calls": list}, ("right", "valid"), call_functions,
    {**WRITTEN, "max_tokens": 256}, _wrong,
)  # fmt: skip
