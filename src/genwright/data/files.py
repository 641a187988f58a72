"""The rows of a split as we keep them: one JSON line a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from genwright.data.formats import Row, from_json, to_json


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file."""
    path.write_text("".join(json.dumps(to_json(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def load_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    # Not splitlines(): JSON leaves U+2028 and its like unescaped, and they end no line here.
    return [from_json(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
