"""docs/catalogue.md: its code runs, and its tables say what the catalogue says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from genwright.catalogue.devices import devices
from genwright.catalogue.models import models
from genwright.catalogue.profiles import profiles
from genwright.catalogue.tasks import tasks


def rows(page: str) -> dict[str, list[str]]:
    """First name of a table row -> the row's cells."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {re.findall("`([^`]+)`", row[0])[0]: row for row in reversed(cells)}  # the first of two tables wins


def test_the_code_of_the_page_runs(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    assert runpy.run_path(str(tmp_path / "page.py"))["task"]


def test_the_tables_of_the_page_are_those_of_the_catalogue(page: str) -> None:
    shown = rows(page)
    for card in models().values():
        assert shown[card.name][1] == card.family and shown[card.name][-1].rstrip(" |") == card.licence
    for part in devices().values():
        assert ("(unverified)" in shown[part.name][0]) == (not part.verified) and shown[part.name][1] == part.title
    for task in tasks().values():
        assert shown[task.name][1] == ", ".join(task.families) and f"`{task.metric}`" in shown[task.name]
    assert len(shown) > len(models()) + len(devices()) + len(tasks()) + len(profiles()) - 1


def test_the_page_counts_right(page: str) -> None:
    counts = f"{len(tasks())} tasks, {len(profiles())} application profiles"
    assert f"{counts}, {len(models())} models and {len(devices())} devices" in page
