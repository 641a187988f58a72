"""Commands run in this process, with the other rooms replaced where a test wants to."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genwright.base import registry
from genwright.cli import main, rooms


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON; an error if anything else stands there."""
        return json.loads(self.out)


@pytest.fixture
def genwright(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line."""

    def run(*words: object) -> Ran:
        code = main([str(word) for word in words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command finds behind "module:object" instead of the real thing."""
    fakes: dict[str, Any] = {}
    monkeypatch.setattr(rooms, "resolve", lambda path: fakes[path] if path in fakes else registry.resolve(path))
    return fakes


@pytest.fixture(scope="session")
def recorded() -> ModuleType:
    """The module that writes the example project (tests/web/recorded.py)."""
    path = Path(__file__).parents[1] / "web" / "recorded.py"
    spec = importlib.util.spec_from_file_location("recorded", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def finished(recorded: ModuleType, tmp_path: Path) -> Path:
    """The folder of a finished project."""
    return recorded.write_project(tmp_path / "cloud-commands")


@pytest.fixture
def begun(recorded: ModuleType, tmp_path: Path) -> Path:
    """The folder of a project that was written and not applied."""
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / "genwright.toml").write_text(recorded.TOML)
    (folder / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    return folder
