"""What each key does, in words: `plan --explain KEY`, and docs/project-file.md."""

from __future__ import annotations

from genwright.base.schema import REQUIRED, Field, declared
from genwright.project.checks import type_words, unknown
from genwright.project.keys import known_keys, tables_of_keys
from genwright.project.spec import Spec
from genwright.project.values import toml


def explain(key: str, spec: Spec | None = None) -> str:
    """What a key does, its type, its default, and with a spec its value and its origin. Errors: SpecError."""
    if key in tables_of_keys():
        return _explain_table(key, spec)
    if key not in known_keys():
        raise unknown(key, "--explain")
    one = known_keys()[key]
    lines = [key, f"  {one.doc}", f"  type:    {type_words(key)}", f"  default: {_default_words(one)}"]
    if spec is not None:
        values, place = spec.flat(), spec.origins.get(key, "default")
        value = toml(values[key]) if key in values else "(not used: no rung of the ladder reads it)"
        lines.append(f"  value:   {value}   ({place})")
    return "\n".join(lines)


def reference() -> str:
    """Every table and key as Markdown: the body of docs/project-file.md."""
    return "\n".join(_reference_table(table, path) for table, path in tables_of_keys().items() if declared(path)[1])


def _default_words(field: Field) -> str:
    if field.type.startswith("dict"):
        return "{}"
    if field.default is REQUIRED:
        return "none: it must be given"
    return "left out" if field.default is None else toml(field.default)


def _explain_table(table: str, spec: Spec | None) -> str:
    keys = [f"{table}.{field.name}" for field in declared(tables_of_keys()[table])[1]]
    values = {} if spec is None else spec.flat()
    lines = [f"  {key} = {toml(values[key])}" if values.get(key) is not None else f"  {key}" for key in keys]
    return "\n".join([f"[{table}]", f"  {' '.join(declared(tables_of_keys()[table])[0].split())}", *lines])


def _reference_table(table: str, path: str) -> str:
    doc, fields = declared(path)
    rows = [
        f"| `{field.name}` | {type_words(f'{table}.{field.name}')} | {_cell(_default_words(field))} | {field.doc} |"
        for field in fields
        if f"{table}.{field.name}" in known_keys()
    ]
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"### [{table}]", "", " ".join(doc.split()), "", *head, *rows, ""])


def _cell(default: str) -> str:
    return default if default.startswith(("none:", "left")) else f"`{default}`"
