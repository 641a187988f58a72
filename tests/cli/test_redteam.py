"""The verb from the command line: a tiny model, its page, and requests that mean nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

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


class Obliging(BaseHTTPRequestHandler):
    """Takes up whatever it is asked."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"Sure, this is how it is done: {asked['messages'][-1]['content']}"
        body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def obliging() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Obliging)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_rate_that_is_too_high_fails(obliging: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every goal is reached: more than 99 percent, and not more than 100. An attack that is named twice is made once."""
    words = ["redteam", "--url", obliging, "--attacks", "direct,direct", "--limit", "2", "--out", str(tmp_path)]
    assert main([*words, "--fail-above", "99"]) == 3
    assert "Harmless look-alikes refused: 0 of 16" in capsys.readouterr().out
    assert main([*words, "--fail-above", "100"]) == 0
    assert len(json.loads((tmp_path / "redteam.json").read_text())["transcripts"]) == 2


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--url", "http://127.0.0.1:9/v1", "--model", "m"], "two targets"),
        (["--adapter", "a"], "needs the --model"),
        (["--judge", "http://127.0.0.1:9", "--classifier", "c"], "two verdicts"),
        (["--toxic-prompts", "p.txt"], "tells what is toxic"),
        (["--url", "http://127.0.0.1:9/v1", "--bbq", "b"], "tells no likelihoods"),
        (["--attacks="], "--attacks names none"),
        (["--attacks=,"], "--attacks names none"),
        (["--attacks", "direct,injection", "--attacker", "http://127.0.0.1:9/v1"], "add crescendo"),
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


DEEP = "[" * 50_000
QUESTION = {
    "context": "An A and a B left.", "question": "Who stole?", "ans0": "The A", "ans1": "The B", "ans2": "Nobody knows", "label": 2,
    "answer_info": {"ans0": ["A", "A"], "ans1": ["B", "B"], "ans2": ["Unknown", "unknown"]},
    "additional_metadata": {"stereotyped_groups": ["A"]},
}  # fmt: skip


def without(**changes: Any) -> str:
    return json.dumps(QUESTION) + "\n" + json.dumps(QUESTION | changes) + "\n"


@pytest.mark.parametrize(
    ("option", "name", "text", "wanted"),
    [
        ("--goals", "wishes.txt", b"Do this.\nDo caf\xe9.\n", "wishes.txt:2: the text is not UTF-8"),
        ("--goals", "wishes.csv", b"goal,topic\nDo caf\xe9.,a\n", "wishes.csv:2: the text is not UTF-8"),
        ("--goals", "wishes.csv", "goal,topic\nDo this, then that.,a\n", "wishes.csv:2: the row has 3 columns"),
        ("--goals", "wishes.csv", '# a set\ngoal,topic\n"Do this.,a\n', "wishes.csv:3: the row is not CSV"),
        ("--goals", "wishes.csv", "# a set\ngoal,topic\n", "is empty: it has no rows"),
        ("--goals", "wishes.txt", "\n \n", "is empty: it has no rows"),
        ("--goals", "wishes.txt", "Do this.\n17\n", "wishes.txt:2: this is no wish"),
        ("--goals", "wishes.jsonl", '{"goal": "Do it."}\n{"goal": "..."}\n', "wishes.jsonl:2: this is no wish"),
        ("--goals", "wishes.jsonl", '{"goal": 3}\n', "wishes.jsonl:1: the row has no text"),
        ("--goals", "wishes.jsonl", "3\n", "wishes.jsonl:1: the row is not an object"),
        ("--goals", "wishes.json", '["Do it.", 3]', "wishes.json:1: the row is not an object"),
        ("--goals", "wishes.jsonl", DEEP, "wishes.jsonl:1: the line is not JSON"),
        ("--goals", "wishes.parquet", "no parquet", "wishes.parquet cannot be read"),
        ("--harmless", "asked.txt", "", "is empty: it has no rows"),
        ("--crows-pairs", "pairs.jsonl", "", "is empty: it has no rows"),
        ("--crows-pairs", "pairs.csv", "sent_more,sent_less\n", "is empty: it has no rows"),
        ("--crows-pairs", "pairs.jsonl", "\n\n", "is empty: it has no rows"),
        ("--crows-pairs", "pairs.jsonl", '{"sent_more": "a", "sent_less": 3}\n', "sent_less is no text"),
        ("--crows-pairs", "pairs.jsonl", '{"sent_more": "a", "sent_less": ""}\n', "sent_less is no text"),
        ("--crows-pairs", "pairs.jsonl", b"\xff\xfe", "pairs.jsonl:1: the text is not UTF-8"),
        ("--bbq", "asked.jsonl", "", "is empty: it has no rows"),
        ("--bbq", "asked.jsonl", '{"context": "a"}\n', "asked.jsonl:1: the row lacks question, ans0"),
        ("--bbq", "asked.jsonl", without(label=3), "asked.jsonl:2: the row is not one of this set"),
        ("--bbq", "asked.jsonl", without(label="x"), "label is not 0, 1 or 2"),
        ("--bbq", "asked.jsonl", without(answer_info=[]), "fields of another shape"),
        ("--bbq", "asked.jsonl", without(answer_info={}), "fields of another shape"),
        ("--bbq", "asked.jsonl", without(answer_info=dict.fromkeys(("ans0", "ans1", "ans2"), "AA")), "no pair of name and group"),
        ("--bbq", "asked.jsonl", without(additional_metadata={"stereotyped_groups": "A"}), "stereotyped_groups is no list"),
        ("--bbq", "asked.jsonl", without(context=None), "context is no text"),
    ],
)  # fmt: skip
def test_a_file_is_read_before_any_model(
    option: str, name: str, text: str | bytes, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The model is not there: were it opened first, that would be said."""
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    words = ["redteam", "--model", f"folder:{tmp_path / 'nowhere'}", option, str(file), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr()
    assert wanted in told.err and not told.out and "Traceback" not in told.err and not (tmp_path / "out").exists()


def test_toxic_prompts_are_read_before_their_classifier(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "prompts.txt").write_text("")
    words = ["--toxic-prompts", str(tmp_path / "prompts.txt"), "--classifier", str(tmp_path / "nowhere")]
    assert main(["redteam", "--model", f"folder:{tmp_path / 'nowhere'}", *words, "--out", str(tmp_path / "out")]) == 2
    assert "is empty: it has no rows" in capsys.readouterr().err


def test_what_has_no_likelihoods_is_said_before_it_is_attacked(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("genwright.evaluate.redteam.campaign.campaign")
    (tmp_path / "pairs.jsonl").write_text('{"sent_more": "the red house", "sent_less": "the blue house"}\n')
    model = write_model(tmp_path / "model", "seq2seq")
    words = ["--crows-pairs", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")]
    assert main(["redteam", "--model", f"folder:{model}", *words]) == 2
    assert "Only a decoder has a likelihood" in capsys.readouterr().err and not (tmp_path / "out").exists()
