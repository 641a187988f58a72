"""A small project, and toy stages to run in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # stages are named by strings: "toy:grow" must lead somewhere

TOML = """\
[project]
name = "toy"
seed = 3

[scope]
task = "summarization"
target = 10.0

[data]
train = "train.txt"

[adapt]
steps = 12
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with a file and data."""
    (tmp_path / "genwright.toml").write_text(TOML)
    (tmp_path / "train.txt").write_text("one\ntwo\n")
    return tmp_path
