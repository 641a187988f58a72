"""Rows on disk come back as they were."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from genwright.data.files import load_rows, write_rows
from genwright.data.formats import Row


@given(texts=st.lists(st.text(st.characters(codec="utf-8"))))
def test_rows_come_back(texts: list[str], tmp_path_factory) -> None:
    """Whatever characters they hold: U+2028 and U+0085 are line ends to Python, not to JSON lines."""
    path: Path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [Row("text", text=text, group="g", place="f:1") for text in [*texts, "a\u2028b\x85c\rd"]]
    write_rows(path, rows)
    assert load_rows(path) == rows
