"""One reader for every table: a TOML file of `[name]` tables becomes frozen dataclasses by name, in file order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from genwright.base.registry import unknown_name

Record = TypeVar("Record")


def read_table(name: str, record: Callable[..., Record]) -> dict[str, Record]:
    """`NAME.toml` beside this file, one `record` for each table. A key that is no field of `record` is a TypeError."""
    import tomllib  # 5 ms that `genwright --help` does not need

    tables = tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
    return {
        key: record(name=key, **{field: _frozen(value) for field, value in table.items()})
        for key, table in tables.items()
    }


def pick(kind: str, name: str, known: Mapping[str, Record]) -> Record:
    """The record of a name. Errors: UnknownName with the nearest one."""
    if name not in known:
        raise unknown_name(kind, name, list(known))
    return known[name]


def _frozen(value: Any) -> Any:
    """Lists become tuples, so that a record cannot be changed by whoever reads it."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
