"""The page of constants is the code's: every number that prices time stands in it, and none of them with another value."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan-time.md").read_text(encoding="utf-8")
SET_ON_ROWS = re.findall(
    r"^\| `(\w+)\.([A-Z]\w*(?:\[\"[^\"]+\"\])?(?:\.\w+)?)` \| ([\d.,e\- ]+) \|",
    PAGE.partition("### Which constants were set from residuals")[2].partition("<!-- constants -->")[0],
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def page() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    return importlib.import_module("plan_constants")


def test_the_table_of_all_is_what_the_code_says(page: ModuleType) -> None:
    written = PAGE.split(page.MARKS[0])[1].split(page.MARKS[1])[0]
    assert written == page.table(), "run: python benchmarks/plan_constants.py"
    assert len(re.findall(r"^\| `", written, re.MULTILINE)) > 50
    for name in ("serving_ops.LARGE_CACHE", "priced.step_time.ALIGNED", "priced.speeds.FILL_SECONDS"):
        assert f"| `{name}` |" in written


def test_what_was_set_on_rows_has_the_value_that_was_set(page: ModuleType) -> None:
    """Each name is a value of the code: an entry of a table, or a field of it."""
    assert len(SET_ON_ROWS) == 20
    rooms = {}
    for room in ("priced.speeds", "priced.collectives", "priced.step_time", "serving_ops", "whole_run",
                 "published.row_serving", "published.frameworks_serving"):  # fmt: skip
        rooms[room.rpartition(".")[2]] = importlib.import_module(f"genwright.plan.{room}")
    for module, name, value in SET_ON_ROWS:
        assert page.shown(_of(rooms[module], name)) == value, name


def _of(module: ModuleType, name: str) -> Any:
    """`TABLE["key"].field`, or less of it."""
    table, key, field = re.fullmatch(r"(\w+)(?:\[\"(.+)\"\])?(?:\.(\w+))?", name).groups()  # type: ignore[union-attr]
    found = getattr(module, table)
    found = found if key is None else found[key]
    return found if field is None else getattr(found, field)
