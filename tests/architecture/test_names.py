"""A registered name leads to an object and stands in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genwright.base.errors import UnknownName
from genwright.base.registry import Registry
from genwright.catalogue import parts

REGISTRIES = {registry.kind: registry for registry in vars(parts).values() if isinstance(registry, Registry)}
NAMES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]


def documented_names(docs: Path) -> set[str]:
    """Whatever stands in backquotes in a heading or in the first cell of a table row."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(docs.rglob("*.md")))
    places = re.findall(r"^#+ (.*)$|^\|([^|]*)\|", text, re.MULTILINE)
    return {name for heading, cell in places for name in re.findall(r"`([^`]+)`", heading or cell)}


def test_there_are_registries() -> None:
    assert {"objective", "adapter", "metric"} <= set(REGISTRIES)


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_name_resolves(kind: str, name: str) -> None:
    assert REGISTRIES[kind][name] is not None


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_name_is_documented(root: Path, kind: str, name: str) -> None:
    assert name in documented_names(root / "docs"), f"{kind} '{name}' is in no heading and no table of docs/"


def test_only_headings_and_tables_count(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# The `one`\ntext `two`\n| `three` | `four` |\n")
    assert documented_names(tmp_path) == {"one", "three"}


@pytest.mark.parametrize("kind", sorted(REGISTRIES))
def test_unknown_name_is_told_the_nearest(kind: str) -> None:
    name = next(iter(REGISTRIES[kind]))
    with pytest.raises(UnknownName, match=f"did you mean '{name}'"):
        REGISTRIES[kind].path(name + "x")
