"""The verb from the command line: a tiny model, its page, and requests that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.tiny import write_model

from genwright.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), "decoder")


def test_a_model_is_attacked_and_probed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = [
        {"sent_more": "the red house", "sent_less": "the blue house"},
        {"sent_more": "a", "sent_less": "the white river"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = ["redteam", "--model", f"folder:{model}", "--attacks", "direct,injection,crescendo", "--limit", "2", "--turns", "3",
             "--max-tokens", "4", "--crows-pairs", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attacks"]["direct"]["goals"] == 2 and told["attacks"]["injection"]["attempts"] == 10
    assert told["probes"]["crows_pairs"]["rows"] == 2 and told["scored_by"] == ["canary", "rules"]
    whole = json.loads((tmp_path / "out" / "redteam.json").read_text())
    page = (tmp_path / "out" / "redteam.html").read_text()
    assert len(whole["transcripts"]) == 2 + 10 + 2 and page.count("<details>") == 14 and "<script" not in page


def test_a_rate_that_is_too_high_fails(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [
        "redteam",
        "--model",
        f"folder:{model}",
        "--attacks",
        "direct",
        "--limit",
        "1",
        "--max-tokens",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--fail-above", "-1"]) == 3
    assert "Harmless look-alikes refused: 0 of 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--url", "http://127.0.0.1:9/v1", "--model", "m"], "two targets"),
        (["--adapter", "a"], "needs the --model"),
        (["--judge", "http://127.0.0.1:9", "--classifier", "c"], "two verdicts"),
        (["--toxic-prompts", "p.txt"], "tells what is toxic"),
        (["--url", "http://127.0.0.1:9/v1", "--bbq", "b"], "tells no likelihoods"),
        (["--turns", "0"], "bound makes no sense"),
        (["--attacks", "directly"], "direct"),
        (["--goals", "none.txt"], "There is no none.txt"),
        ([], "There is no genwright.toml"),
    ],
)
def test_requests_that_mean_nothing(
    words: list[str], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--project", str(tmp_path), "redteam", *words]) == 2
    assert wanted in capsys.readouterr().err


def test_an_address_that_is_not_there_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["redteam", "--url", "http://127.0.0.1:9/v1", "--seconds", "2", "--out", str(tmp_path)]) == 1
    assert "gave no answer" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_that_is_no_classifier(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["redteam", "--model", f"folder:{model}", "--classifier", str(model), "--out", str(tmp_path)]) == 2
    assert "No class of" in capsys.readouterr().err
