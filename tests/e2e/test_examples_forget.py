"""forget-one in short: fewer people, a smaller model, the same story."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "forget-one"
MADE = shutil.ignore_patterns("data", "model", ".genwright", "unlearned", "report.html", "__pycache__")


def test_one_person_is_forgotten_and_the_others_are_not(
    tmp_path: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "forget-one", ignore=MADE)
    for script, *words in (("make_data.py", "--people", "3"), ("make_model.py", "--width", "64", "--layers", "2")):
        subprocess.run([sys.executable, project / script, *words], check=True, capture_output=True)
    facts = [json.loads(line) for line in (project / "data" / "forget.jsonl").read_text().splitlines()]
    everything = (project / "data" / "without.jsonl").read_text()
    assert len(facts) == 6 and not any(fact["completion"] in everything for fact in facts)
    assert (
        genwright_here(project, "apply", "--json", "--set", "adapt.steps=90", "--set", "adapt.batch_size=24").code == 0
    )
    done = genwright_here(
        project, "unlearn", "--forget", "data/forget.jsonl", "--retain", "data/retain.jsonl", "--also", "data/skills.jsonl",
        "--with", "beta=0.5", "--steps", "30", "--learning-rate", "1e-3", "--relearn-steps", "4", "--json",
    )  # fmt: skip
    assert done.code in (0, 3), done.told
    before, after = done.json["before"], done.json["after"]
    assert before["forget"]["rouge_l"] > 0.5 > 0.3 > after["forget"]["rouge_l"]
    assert after["kept"]["retain"]["rouge_l"] > after["forget"]["rouge_l"] + 0.2
    assert (project / "unlearned" / "model" / "model.safetensors").exists()
    monkeypatch.setattr("sys.argv", ["table.py"])
    runpy.run_path(str(project / "table.py"), run_name="__main__")
    assert "| forget: ROUGE-L |" in capsys.readouterr().out
