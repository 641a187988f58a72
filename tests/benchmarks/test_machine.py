"""Results carry where and when they were measured, and what was found is kept as it is."""

import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import machine

    yield machine
    sys.modules.pop("machine")


def test_a_result_is_written_with_its_origin(machine, tmp_path):
    path = tmp_path / "new" / "one.json"
    written = machine.write_result(path, ratio=0.5, versions={"peer": "1"})
    assert json.loads(path.read_text(encoding="utf-8")) == written
    assert written["ratio"] == 0.5 and written["versions"] == {"peer": "1"}  # its own word stays
    assert written["machine"]["cores"] >= 1 and written["date"].endswith("+00:00") and "commit" in written
    assert path.read_text(encoding="utf-8").endswith("}\n")
