"""The verb from the command line: models, an adapter, an address, a project's result, and requests that mean nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.tiny import model, rows, write_model, write_project

CHOICES = [
    {"prompt": row["prompt"], "choices": ["red", "green", "blue", "white"], "answer": n % 4}
    for n, row in enumerate(rows("chat")[:12])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("evaluate")
    write_model(base / "one", "decoder")
    write_model(base / "two", "decoder", seed=1)
    lines = lambda made: "".join(json.dumps(row) + "\n" for row in made)
    (base / "choices.jsonl").write_text(lines(CHOICES))
    (base / "chat.jsonl").write_text(
        lines({"prompt": row["prompt"], "reference": row["completion"]} for row in rows("chat")[:4])
    )
    (base / "choices.toml").write_text('form = "choice"\nfile = "choices.jsonl"\n')
    (base / "chat.toml").write_text('form = "generation"\nfile = "chat.jsonl"\nmetric = "chrf"\nmax_tokens = 4\n')
    return base


@pytest.fixture(scope="module")
def adapter(folder: Path) -> str:
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model("decoder"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    torch.manual_seed(3)
    adapted.save_pretrained(folder / "adapter")
    return f"adapted=folder:{folder / 'one'}+{folder / 'adapter'}"


def test_two_models_and_an_adapter_are_compared(
    folder: Path, adapter: str, tmp_path: Path, genwright: Callable[..., Any]
) -> None:
    suites = [
        "--suite",
        folder / "choices.toml",
        "--suite",
        folder / "chat.toml",
        "--precision",
        "fp32",
        "--out",
        tmp_path,
    ]
    systems = [f"one=folder:{folder / 'one'}", f"two=folder:{folder / 'two'}", adapter]
    ran = genwright("evaluate", *systems, *suites, "--json")
    assert ran.code == 0, ran.err
    told = ran.json()
    assert told["systems"] == ["one", "two", "adapted"] and len(told["comparisons"]) == 4
    assert ran.err.index("choices: 12 rows, acc; a true difference below") < ran.err.index("chat: 4 rows, chrf")
    whole = json.loads((tmp_path / "evaluate.json").read_text())
    answers = {name: one["answers"] for name, one in whole["suites"][0]["systems"].items()}
    assert all(len(said) == 12 for said in answers.values()) and answers["one"] != answers["two"]
    assert [one["also"]["corpus"] for one in whole["suites"][1]["systems"].values()]
    drawn = genwright("evaluate", *systems[:2], *suites[:2], "--limit", 2, "--out", tmp_path)
    assert "choices: acc, 2 rows" in drawn.out and "no difference shown" in drawn.out and "two against one" in drawn.out


class Fake(BaseHTTPRequestHandler):
    """Says "blue" to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"choices": [{"message": {"content": "blue"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Fake)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_answers_and_is_refused_likelihoods(
    folder: Path, address: str, tmp_path: Path, genwright: Callable[..., Any]
) -> None:
    ran = genwright("evaluate", f"far={address}#m", "--suite", folder / "chat.toml", "--out", tmp_path, "--json")
    one = ran.json()["suites"][0]["systems"]["far"]
    assert ran.code == 0 and one["n"] == 4 and one["value"] > 20  # one house of four is blue
    ran = genwright("evaluate", address, "--suite", folder / "choices.toml", "--out", tmp_path / "none")
    assert ran.code == 2 and "only writes" in ran.err and not (tmp_path / "none").exists()


def test_a_projects_classifier_is_asked_after_its_baseline(tmp_path: Path, genwright: Callable[..., Any]) -> None:
    write_project(
        tmp_path, kind="labelled", task="classification", family="encoder", method="head", objective="classification"
    )
    asked = [
        {"prompt": row["text"], "reference": row["label"], "kind": n % 2} for n, row in enumerate(rows("labelled")[:12])
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (tmp_path / "labels.toml").write_text('form = "generation"\nfile = "labels.jsonl"\nmetric = "accuracy"\n')
    with (tmp_path / "genwright.toml").open("a") as file:
        file.write('\n[evaluate]\nsuites = ["labels.toml"]\nbaseline = "head"\n')
    assert genwright("apply", "--project", tmp_path).code == 0
    ran = genwright("evaluate", "--project", tmp_path, "--json")
    assert ran.code == 0, ran.err
    told = ran.json()
    assert told["systems"] == ["head", "result"] and told["comparisons"][0]["difference"] == 0
    said = json.loads((tmp_path / "evaluate.json").read_text())["suites"][0]["systems"]["result"]["answers"]
    assert set(said) <= {"red", "green", "blue", "white"} and len(said) == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "nothing.toml"], "There is no suite nothing.toml"),
        ([], "There is no genwright.toml"),
        (["result", "--suite", "CHAT"], "There is no genwright.toml"),
        (["folder:/nowhere", "--suite", "CHAT"], "nowhere"),
        (["folder:ONE+nothing", "--suite", "CHAT"], "There is no adapter in nothing"),
        (["http://127.0.0.1:9/v1", "--suite", "CHAT", "--seconds", "1"], "gave no answer"),
    ],
)
def test_requests_that_mean_nothing(
    folder: Path, tmp_path: Path, genwright: Callable[..., Any], words: list[str], said: str
) -> None:
    put = [word.replace("CHAT", str(folder / "chat.toml")).replace("ONE", str(folder / "one")) for word in words]
    ran = genwright("evaluate", *put, "--project", tmp_path)
    assert ran.code == (1 if "http" in "".join(words) else 2) and said in ran.err and "Traceback" not in ran.err
    assert not list(tmp_path.iterdir())


def test_a_project_without_suites_is_told_so(finished: Path, genwright: Callable[..., Any]) -> None:
    ran = genwright("evaluate", "--project", finished)
    assert ran.code == 2 and "No suite is named" in ran.err
