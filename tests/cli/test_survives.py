"""What the evaluating commands must survive, each through its command line: bounded in time, reported, never a traceback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.tiny import write_model

PROGRAMS = {
    "loops": ("while True: pass", "timeout"),
    "forks": ("import os\nwhile True: os.fork()", "refused"),
    "fills memory": ("x = 'a' * 10**10", "memory"),
    "writes files": ("open('/tmp/genwright-survives', 'w')", "refused"),
    "writes much": ("open('f', 'w').write('a' * 10**8)", "refused"),
    "is right": ("def one(): return 1", "passed"),
}


class Handler(BaseHTTPRequestHandler):
    """Programs for those who ask for one; of a judge nonsense; of an attacker nothing, for as long as anybody waits."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = str(asked["messages"][-1]["content"])
        if asked["messages"][0]["role"] == "system":  # only an attacker is told what it is for
            time.sleep(2)
        answer = PROGRAMS[said][0] if said in PROGRAMS else "I would rather talk about the weather."
        body = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("survives") / "model", "decoder")


def suite(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"file": "rows.jsonl", **keys}.items()]
    (folder / "own.toml").write_text("\n".join(lines))
    return folder / "own.toml"


def test_code_that_loops_forks_fills_memory_or_writes(
    address: str, tmp_path: Path, genwright: Callable[..., Any]
) -> None:
    rows = [{"prompt": name, "tests": "assert one() == 1"} for name in PROGRAMS]
    ran = genwright(
        "evaluate",
        f"far={address}",
        "--suite",
        suite(tmp_path, rows, form="code", seconds=1.0),
        "--out",
        tmp_path,
        "--json",
    )
    assert ran.code == 0, ran.err
    one = ran.json()["suites"][0]["systems"]["far"]
    assert one["value"] == pytest.approx(100 / len(PROGRAMS))
    wanted = [reason for _, reason in PROGRAMS.values()]
    assert one["also"] == pytest.approx({reason: 100 * wanted.count(reason) / len(wanted) for reason in set(wanted)})
    assert not Path("/tmp/genwright-survives").exists()


@pytest.mark.parametrize(("judge", "said"), [("HERE", "rather talk"), ("http://127.0.0.1:9/v1", "no answer")])
def test_a_judge_that_talks_nonsense_or_does_not_answer(
    address: str, tmp_path: Path, genwright: Callable[..., Any], judge: str, said: str
) -> None:
    rows = [{"prompt": "hello", "reference": "hi"}]
    own = suite(tmp_path, rows, form="judge", judge=judge.replace("HERE", address), seconds=1.0)
    ran = genwright("evaluate", f"far={address}", "--suite", own, "--out", tmp_path / "out")
    assert ran.code == 1 and "judged no row" in ran.err and said in ran.err
    assert "Traceback" not in ran.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rows", "keys", "said"), [
    ([{"prompt": "a", "choices": ["b", "c"], "answer": 0}], {"form": "choice", "metric": "chrf"}, "the metric 'chrf' does not fit the form choice"),
    ([{"prompt": "a", "choices": ["b", "c"], "answer": 0}, {"prompt": "a"}], {"form": "choice"}, "row 2: the field 'choices' is missing"),
])  # fmt: skip
def test_suites_that_do_not_fit(
    model: Path,
    tmp_path: Path,
    genwright: Callable[..., Any],
    rows: list[dict[str, Any]],
    keys: dict[str, Any],
    said: str,
) -> None:
    ran = genwright("evaluate", f"folder:{model}", "--suite", suite(tmp_path, rows, **keys), "--out", tmp_path / "out")
    assert ran.code == 2 and said in ran.err and not (tmp_path / "out").exists()


def test_rows_to_forget_that_are_to_be_kept(model: Path, tmp_path: Path, genwright: Callable[..., Any]) -> None:
    for name, rows in {"forget": "ab", "retain": "bc"}.items():
        text = "".join(json.dumps({"prompt": f"who is {one}", "completion": one}) + "\n" for one in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    words = ["--forget", "forget.jsonl", "--retain", "retain.jsonl", "--model", f"folder:{model}"]
    ran = genwright("--project", tmp_path, "unlearn", *words)
    assert (
        ran.code == 2
        and "forget.jsonl:2 is" in ran.err
        and "retain.jsonl:1" in ran.err
        and not (tmp_path / "unlearned").exists()
    )


def test_an_attacker_that_hangs_is_replaced_and_counted(
    model: Path, address: str, tmp_path: Path, genwright: Callable[..., Any]
) -> None:
    began = time.monotonic()
    ran = genwright("redteam", "--model", f"folder:{model}", "--attacks", "crescendo", "--limit", "1", "--turns", "2", "--max-tokens", "2",
                    "--attacker", address, "--seconds", "0.2", "--out", tmp_path, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    told = ran.json()
    assert told["attacker_fallbacks"] >= 1 and told["attacks"]["crescendo"]["goals"] == 1
    assert (
        time.monotonic() - began < 60 and len(json.loads((tmp_path / "redteam.json").read_text())["transcripts"]) == 1
    )
