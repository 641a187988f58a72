"""A finished project to render."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def recorded() -> ModuleType:
    """The module that writes the example project."""
    spec = importlib.util.spec_from_file_location("recorded", Path(__file__).with_name("recorded.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def finished(recorded: ModuleType, tmp_path: Path) -> Path:
    """The folder of a finished project."""
    return recorded.write_project(tmp_path / "cloud-commands")
