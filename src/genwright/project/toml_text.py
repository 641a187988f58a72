"""A project file's text: TOML to dotted keys, and the line on which each began."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from genwright.base.errors import SpecError


def parse(text: str, name: str) -> dict[str, Any]:
    """TOML as nested tables. Errors: SpecError with file and line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = re.sub(r" \(at .*\)$", "", str(error))
        line = re.search(r"at line (\d+)", str(error))
        number = int(line[1]) if line else text.count("\n") + 1
        place = f"{name}:{number}"
        raise SpecError(f"{place}: this is not TOML: {told}.", do="correct the line; text needs quotes") from None


def flatten(value: Mapping[str, Any], prefix: str = "", known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nested tables -> dotted keys. An empty table, and one named in `known`, stays a value."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner and key not in known:
            flat |= flatten(inner, f"{key}.", known)
        else:
            flat[key] = inner
    return flat


def lines_of(text: str) -> dict[str, int]:
    """Dotted key -> the line on which its statement begins. Call with text that is known to be TOML.

    tomllib keeps no positions. But a TOML statement ends at the first line where what has been read since its start is
    itself TOML, so we feed it line by line.
    """
    found: dict[str, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header, statement = statement.lstrip().startswith("["), ""
        if is_header:
            header = ".".join(_path(parsed)) + "."
            found.setdefault(header[:-1], start)
        else:
            found |= dict.fromkeys(flatten(parsed, header), start)
    return found


def _path(parsed: Any) -> list[str]:
    """The names in a table header that was parsed alone."""
    if isinstance(parsed, list):
        return _path(parsed[0])
    return [name for key, inner in parsed.items() for name in (key, *_path(inner))]


def value_of(text: str) -> Any:
    """A TOML value; text that is none is taken as it stands, since a shell eats quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if re.fullmatch(r"[^\"'\[\]{}]+", text):
            return text
        do = "quote it for your shell: --set 'adapt.ladder=[\"lora\"]'"
        raise SpecError(f"'{text}' is not a TOML value.", do=do) from None
