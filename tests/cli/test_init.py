from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from genwright.base.registry import resolve
from genwright.cli.init import Answers, toml


def read(folder: Path) -> Any:
    return resolve("genwright.project.spec:read_spec")(folder / "genwright.toml")


def test_flags_are_read_back_as_they_were_given(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "rows.jsonl").write_text("{}\n")
    ran = genwright(
        "init", tmp_path, "--yes", "--name", 'quotes " and ünïcode', "--task", "summarization", "--data", "rows.jsonl",
        "--metric", "chrf", "--target", "45.5", "--model", "hub:a/b@c", "--ladder", "few-shot,lora",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    spec = read(tmp_path)
    assert spec.project.name == 'quotes " and ünïcode'
    assert (spec.scope.task, spec.scope.metric, spec.scope.target) == ("summarization", "chrf", 45.5)
    assert (spec.data.train, spec.select.models, spec.adapt.ladder) == (
        "rows.jsonl",
        ("hub:a/b@c",),
        ("few-shot", "lora"),
    )


def test_with_yes_everything_has_a_default(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "my-project"
    ran = genwright("init", folder, "--yes")
    assert ran.code == 0, ran.err
    spec = read(folder)
    assert spec.project.name == "my-project" and spec.scope.target is None
    assert "train.jsonl is not there yet" in ran.out and f"genwright plan --project {folder}" in ran.out


def test_the_one_data_file_of_a_folder_is_found(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "questions.csv").write_text("prompt,completion\n")
    genwright("init", tmp_path, "--yes")
    assert read(tmp_path).data.train == "questions.csv"


def test_a_data_file_elsewhere_is_named_from_the_project(genwright, tmp_path: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    genwright("init", "project", "--yes", "--data", "rows.jsonl")
    assert read(tmp_path / "project").data.train == "../rows.jsonl"


def test_the_questions_fill_what_no_flag_said(genwright, tmp_path: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO("summarization\n60\nshort\nnotes.jsonl\n\n"))
    ran = genwright("init", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert ran.json() == {"path": str(tmp_path / "genwright.toml"), "name": "short"}
    assert "Kind of work" in ran.err
    spec = read(tmp_path)
    assert (spec.scope.task, spec.scope.target, spec.data.train, spec.select.models) == (
        "summarization",
        60,
        "notes.jsonl",
        (),
    )


def test_an_answer_that_is_no_number_is_an_error(genwright, tmp_path: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO("summarization\nhigh\n"))
    ran = genwright("init", tmp_path)
    assert ran.code == 2 and "The target is not a number." in ran.err and "'high'" in ran.err
    assert not (tmp_path / "genwright.toml").exists()


def test_no_answers_point_to_yes(genwright, tmp_path: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ran = genwright("init", tmp_path)
    assert ran.code == 2 and "The questions got no answer." in ran.err and "--yes" in ran.err


def test_a_project_is_not_overwritten(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "genwright.toml"
    file.write_text("mine")
    ran = genwright("init", tmp_path, "--yes")
    assert ran.code == 2 and "exists" in ran.err and "--force" in ran.err
    assert file.read_text() == "mine"
    assert genwright("init", tmp_path, "--yes", "--force").code == 0
    assert read(tmp_path).scope.task == "chat"


@pytest.mark.parametrize("flags", [("--task", "sumarization"), ("--ladder", "lorra"), ("--metric", "crf")])
def test_a_wrong_name_writes_nothing(genwright, tmp_path: Path, flags: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("init", tmp_path, "--yes", *flags)
    assert ran.code == 2 and flags[1] in ran.err
    assert not (tmp_path / "genwright.toml").exists()


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "a\tb", "\x7f", "# no comment", "é😀"])
def test_any_name_can_stand_in_the_file(name: str) -> None:
    import tomllib

    answers = Answers(name, "chat", "train.jsonl", "", None, "", ("lora",), "auto")
    assert tomllib.loads(toml(answers))["project"]["name"] == name
