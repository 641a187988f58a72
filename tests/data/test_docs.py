"""docs/data.md: every format has its section, and its rows are read as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genwright.data.formats import FORMATS, Row
from genwright.data.sources import READERS, read_rows
from genwright.data.splits import GROUPINGS
from genwright.data.templates import encode

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_shown(name: str, tmp_path: Path) -> None:
    section = PAGE.split(f"### {name}\n")[1].split("\n#")[0]
    (rows,) = re.findall(r"```jsonl\n(.*?)```", section, re.DOTALL)
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    dataset = read_rows(tmp_path / "rows.jsonl")
    assert dataset.format == name
    assert len({row.key for row in dataset.rows}) == 1, "the section's rows are the same row, written in two ways"


def test_endings_and_groupings_are_named() -> None:
    assert all(f"`{ending}`" in PAGE for ending in READERS)
    assert all(f'| `"{name}"` |' in PAGE for name in GROUPINGS)


def test_the_fallback_template_is_shown(tokenizer_with) -> None:
    (shown,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    question, answer = (
        {"role": "user", "content": "List my groups"},
        {"role": "assistant", "content": "az group list"},
    )
    tokenizer = tokenizer_with(None)
    row = encode(Row("chat", messages=(question, answer)), tokenizer, max_tokens=200)
    assert tokenizer.decode(row.input_ids, skip_special_tokens=True) == shown
