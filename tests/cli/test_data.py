"""`genwright data check`: exit codes, and nothing personal on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "write to jane@doe.example"}\n{"text": "A fine day."}\n')
    return path


def test_findings_are_exit_3_and_masked(genwright, file) -> None:
    ran = genwright("data", "check", file)
    assert ran.code == 3 and "email at characters 10 to 25" in ran.out and "jane" not in ran.out
    assert "leaked" in ran.out and "not checked" in ran.out


def test_good_rows_are_set_apart(genwright, file, tmp_path) -> None:
    ran = genwright("data", "check", file, "--write", tmp_path / "clean.jsonl", "--json")
    assert ran.code == 0 and ran.json()["good"] == 1
    assert json.loads((tmp_path / "clean.jsonl").read_text()) == {"text": "A fine day."}
    assert genwright("data", "check", tmp_path / "clean.jsonl").code == 0


def test_options_of_the_other_action(genwright, file) -> None:
    assert "data show" in genwright("data", "check", file, "--max-tokens", 5).err
    assert "data check" in genwright("data", "show", file, "--write", "x.jsonl").err
    assert "One file" in genwright("data", "show", file, file).err
    ran = genwright("data", "check", file, "--checks", "leaked")
    assert ran.code == 2 and "--test FILE" in ran.err
