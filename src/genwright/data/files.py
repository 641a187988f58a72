"""The rows of a split as we keep them: one JSON line a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from genwright.base.files import json_lines
from genwright.data.formats import Row, from_json, to_json


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file."""
    path.write_text("".join(json.dumps(to_json(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def load_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    return [from_json(value) for value in json_lines(path)]
