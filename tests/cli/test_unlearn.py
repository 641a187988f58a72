"""`genwright unlearn`: from options to a request, and from what was measured to an exit code and a page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def side(rouge: float) -> dict[str, Any]:
    knows = {"probability": 0.5, "rouge_l": rouge, "truth_ratio": 0.4, "answers": ["<b>Ann</b> was born"]}
    attacks = {"extraction": {"tokens": 0.5, "rows": 0.0}, "paraphrase": {"rouge_l": rouge, "rows": 0.0}}
    return {"forget": knows | attacks, "kept": {"retain": knows}, "utility": 0.6, "bits_per_token": 1.5}


def found(holds: bool) -> dict[str, Any]:
    bound = {"holds": True, "before": 1.0, "after": 0.95, "difference": -0.05, "low": -0.1, "high": 0.0}
    return {
        "method": "npo", "steps": 3, "forget_rows": 1, "keep": 0.9, "before": side(1.0), "after": side(0.1), "never_saw": side(0.0),
        "forget_quality": {"p_value": 0.4, "statistic": 0.2, "before": {"p_value": 0.001}},
        "forgotten": {"holds": holds, "halved": True}, "kept": {"retain": bound},
        "benchmarks": {"sums": bound | {"before": 50.0, "after": 49.0, "metric": "acc", "rows": 9, "verdict": "no difference shown",
                                        "minimum_detectable_difference": 46.7, "lower_is_better": False, "p_holm": 1.0}},
        "relearned": {"unlearned": {"probability": [0.1, 0.6], "half_back_after": 1},
                      "never saw them": {"probability": [0.1, 0.1], "half_back_after": None}},
    }  # fmt: skip


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 3)])
def test_verdict_table_and_page(genwright, fake, tmp_path: Path, holds: bool, code: int) -> None:
    room, asked = "genwright.improve.unlearning", {}
    fake[f"{room}:folder_of"] = lambda name, base: base / "model" / name
    fake[f"{room}:Request"] = lambda **wanted: SimpleNamespace(**wanted)
    fake[f"{room}:unlearn"] = lambda request, out, say: (asked.update(vars(request)), out.mkdir(), found(holds))[-1]
    ran = genwright(
        "--project", tmp_path, "unlearn", "--forget", "f.jsonl", "--retain", "r.jsonl", "--with", "beta=0.5",
        "--suite", "sums.toml",
    )  # fmt: skip
    assert ran.code == code and "forget: ROUGE-L" in ran.out and "half of it never" in ran.out
    assert (
        asked["settings"] == (("beta", 0.5),) and asked["forget"] == tmp_path / "f.jsonl" and asked["never_saw"] is None
    )
    assert asked["suites"] == (tmp_path / "sums.toml",) and "sums unharmed: yes, 50.00 to 49.00" in ran.out
    page = (tmp_path / "unlearned" / "unlearn.html").read_text()
    assert "&lt;b&gt;Ann" in page and ("Not forgotten" in page) is not holds and "p = 0.4" in page
    assert "sums: acc, unharmed" in page and "46.7" in page
    assert json.loads((tmp_path / "unlearned" / "unlearn.json").read_text())["method"] == "npo"
