"""which-service and translate-ui, shorter: on tiny models and rows made here."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.tiny import write_model

EXAMPLES = Path(__file__).parents[2] / "examples"
MADE = shutil.ignore_patterns("data", "model", ".genwright", "report.html", "__pycache__")
SHORT = ("adapt.steps=2", "adapt.batch_size=4", "adapt.max_new_tokens=2", "adapt.precision=fp32")


def copied(name: str, folder: Path, rows: list[dict[str, str]], file: str) -> Path:
    shutil.copytree(EXAMPLES / name, folder / name, ignore=MADE)
    (folder / name / "data").mkdir()
    (folder / name / "data" / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def settings(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_a_ladder_and_an_encoder_stand_in_one_table(
    tmp_path: Path, genwright_here: Callable, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = ("vm", "storage")
    rows = [{"text": f"{services[n % 2]} {n}", "label": services[n % 2], "group": f"g{n}"} for n in range(24)]
    project = copied("which-service", tmp_path, rows, "services.jsonl")
    write_model(project / "model", "encoder")
    write_model(project / "decoder", "decoder")
    own = settings(
        *SHORT,
        'select.models=["folder:decoder"]',
        "adapt.examples=1",
        'adapt.ladder=["few-shot", "lora"]',
        "scope.target=101.0",
    )
    assert genwright_here(project, "apply", "--json", *own).code == 3
    encoder = settings("adapt.epochs=1", "adapt.batch_size=8")
    assert genwright_here(project / "encoder", "apply", "--json", *encoder).code == 0
    monkeypatch.setattr("sys.argv", ["table.py"])
    runpy.run_path(str(project / "table.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| encoder | last-layers |" in printed and "| ladder | few-shot, lora |" in printed
    assert (project / "ladder-easy.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_the_pairs_are_short_and_the_first_translation_counts() -> None:
    chosen = runpy.run_path(str(EXAMPLES / "translate-ui" / "make_data.py"))["chosen"]
    found = chosen([("Save", "Enregistrer"), ("Save", "Sauver"), ("x" * 121, "y"), ("Add", " "), ("Add", "Ajouter ")])
    assert found == [
        {"prompt": "Add", "completion": "Ajouter", "group": "add"}, {"prompt": "Save", "completion": "Enregistrer", "group": "save"},
    ]  # fmt: skip


def test_singulars_and_texts_of_several_meanings_are_read() -> None:
    read = runpy.run_path(str(EXAMPLES / "translate-ui" / "make_data.py"))["pairs"]
    catalogue = {
        "": "header", "Save": "Enregistrer", "month\x04May": "Mai", "OK": "OK", ("%d day", 0): "%d jour", ("%d day", 1): "%d jours",
    }  # fmt: skip
    assert list(read(catalogue)) == [("Save", "Enregistrer"), ("May", "Mai"), ("%d day", "%d jour")]


def test_an_encoder_decoder_is_made_and_translates(
    tmp_path: Path, genwright_here: Callable, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"save {n}", "completion": f"enregistrer {n}", "group": f"g{n}"} for n in range(40)]
    project = copied("translate-ui", tmp_path, rows, "ui.jsonl")
    monkeypatch.setattr("sys.argv", ["make_model.py"])
    runpy.run_path(str(project / "make_model.py"), run_name="__main__")
    done = genwright_here(project, "apply", "--json", *settings(*SHORT))
    assert done.code == 0, done.told
    assert done.json["summaries"]["select"]["family"] == "encoder-decoder"
    assert done.json["summaries"]["evaluate"]["scores"]["full"]["chrf"]["n"] == 5
    write_model(project / "tiny", "decoder")
    own = settings(*SHORT, 'select.models=["folder:../tiny"]', "adapt.examples=1")
    assert genwright_here(project / "decoder", "apply", "--json", *own).code == 0
    monkeypatch.setattr("sys.argv", ["table.py"])
    runpy.run_path(str(project / "table.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| encoder-decoder, from nothing |" in printed and "| decoder, few-shot |" in printed
    assert "decoder - encoder-decoder on 5 equal test rows" in printed
