"""What the tables of the catalogue are compared with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data sets beside the repository, which a clone need not have."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.exists():
        pytest.skip("the data sets are not here")
    return folder


@pytest.fixture(scope="session")
def page() -> str:
    """The page of the catalogue."""
    return (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def documented(page: str) -> set[str]:
    """Whatever stands in backquotes in a heading or in the first cell of a table row of the page."""
    places = re.findall(r"^#+ (.*)$|^\|([^|]*)\|", page, re.MULTILINE)
    return {name for heading, cell in places for name in re.findall(r"`([^`]+)`", heading or cell)}
