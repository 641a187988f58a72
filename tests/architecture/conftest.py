"""The house's own source, read once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "genwright"


@dataclass(frozen=True)
class Module:
    """A file of the package or of the tests."""

    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        """Where it stands, for messages."""
        return self.path.relative_to(ROOT).as_posix()


def read_modules(folder: Path) -> list[Module]:
    return [Module(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(folder.rglob("*.py"))]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    return PACKAGE


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every file of the package."""
    return read_modules(PACKAGE)


@pytest.fixture(scope="session")
def test_modules() -> list[Module]:
    """Every file of the tests."""
    return read_modules(ROOT / "tests")
