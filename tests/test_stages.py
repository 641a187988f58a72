"""The stage that reads the test rows: rungs compared row by row, and corrected for how many there are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genwright import stages
from genwright.data.formats import Row
from genwright.improve.judging import Judgement


def test_rungs_are_compared_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A gain on 6 of 20 rows has p = 2 / 2**6 = 0.03125: alone it shows, beside another it has twice that (Holm 1979)."""
    rows = [Row(kind="labelled", text=f"row {n}", label="x") for n in range(20)]
    right = {"zero-shot": 0, "few-shot": 0, "lora": 6}
    judged = {
        name: Judgement(["x"] * 20, [100.0] * count + [0.0] * (20 - count), {}, 1.0, 1) for name, count in right.items()
    }
    climbed = list(judged)
    shop: Any = SimpleNamespace(metric="accuracy", rows=lambda split: rows)
    shop.adapted = lambda: {"climbed": climbed, "chosen": "lora", "target": None}
    monkeypatch.setattr(stages.Workshop, "of", lambda *_, **__: shop)
    monkeypatch.setattr(stages, "judge", lambda _, name, *__, **___: judged[name])
    context: Any = SimpleNamespace(inputs={"adapt": tmp_path}, out=tmp_path)
    told = lambda: [(one["before"], one["p_value"], one["better"]) for one in stages.evaluate(context)["paired"]]
    assert told() == [("zero-shot", 0.0625, False), ("few-shot", 0.0625, False)]
    climbed.remove("zero-shot")
    assert told() == [("few-shot", 0.03125, True)]
