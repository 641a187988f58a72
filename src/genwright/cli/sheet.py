"""One record of the catalogue, every field of it. A blank is a fact nobody could support, and is said as such."""

from __future__ import annotations

from typing import Any

from genwright.cli.terminal import table


def sheet(console: Any, record: dict[str, Any]) -> None:
    """Print a record as a two-column table."""
    console.print(table(("", ""), [(key.replace("_", " "), words(value)) for key, value in record.items()]))


def words(value: Any) -> str:
    """A value for a person: lists with commas, one line for each record, "not known" for a blank."""
    if value is None or value == "" or value == () or value == [] or value == {}:
        return "not known"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(part, dict) for part in value)
        return ("\n" if nested else ", ").join(_flat(part) for part in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return str(value)


def _flat(part: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in part.items()) if isinstance(part, dict) else str(part)
