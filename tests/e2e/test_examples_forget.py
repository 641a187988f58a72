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
    short = (
        "adapt.steps=90", "adapt.batch_size=24", "unlearn.steps=30", "unlearn.learning_rate=1e-3", "unlearn.relearn_steps=4",
        'unlearn.never_saw=""',
    )  # fmt: skip
    done = genwright_here(project, "apply", "--json", *(word for one in short for word in ("--set", one)))
    assert done.code in (0, 3), done.told
    found = done.json["summaries"]["unlearn"]
    before, after = found["before"], found["after"]
    assert before["forget"]["rouge_l"] > 0.5 > 0.3 > after["forget"]["rouge_l"]
    assert after["kept"]["retain"]["rouge_l"] > after["forget"]["rouge_l"] + 0.2
    assert (
        set(found["benchmarks"]) == {"skills", "others, in new words"} and found["benchmarks"]["skills"]["rows"] == 53
    )
    assert found["met"] is (done.code == 0)
    for name in ("train_seconds", "seconds", "host_bytes"):
        assert found["planned"][name] > 0 and found["measured"][name] > 0
    assert found["measured"]["train_seconds"] < found["measured"]["seconds"]
    assert (
        found["planned"]["low"]["host_bytes"]
        <= found["measured"]["host_bytes"]
        <= found["planned"]["high"]["host_bytes"]
    )

    handed, forgot = (Path(done.json["artifacts"][name]) / "model" for name in ("integrate", "unlearn"))
    assert (handed / "model.safetensors").read_bytes() == (forgot / "model.safetensors").read_bytes()
    said = [
        genwright_here(project, "chat", "--ask", facts[0]["prompt"], "--json", *words).json for words in ([], ["--at", "full"])
    ]  # fmt: skip
    assert said[0] != said[1]  # the result has forgotten; the rung that was climbed has not
    again = genwright_here(project, "apply", "--json", *(word for one in short for word in ("--set", one)))
    assert {one["action"] for one in again.json["stages"]} == {"reuse"}
    page = genwright_here(project, "report")
    told = (project / "report.html").read_text()
    assert page.code == 0 and "Unlearning by npo" in told and "<caption>unlearn" in told.replace("</caption>", "")
    ahead = genwright_here(project, "plan", "--json", *(word for one in short for word in ("--set", one))).json
    assert [rung["name"] for rung in ahead["rungs"]] == ["full", "unlearn"]
    monkeypatch.setattr("sys.argv", ["table.py"])
    runpy.run_path(str(project / "table.py"), run_name="__main__")
    assert "| forget: ROUGE-L |" in capsys.readouterr().out
