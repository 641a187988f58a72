"""The gate on a real result: recorded, held, and failed where the result was tampered with or a server answers otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.e2e.tiny import write_project

from genwright.export.handoffs import recorded
from genwright.export.merge import Parity


def test_a_result_at_the_gate(tmp_path: Path, genwright_here: Callable) -> None:
    project = write_project(
        tmp_path, kind="chat", task="chat", family="decoder", method="lora", objective="instruction"
    )
    sharpen(project / "model")
    early = genwright_here(project, "gate", "--record")
    assert early.code == 2 and "no result to hold at a gate" in early.err
    assert genwright_here(project, "apply").code in (0, 3)
    missing = genwright_here(project, "gate")
    assert missing.code == 2 and "There is no baseline" in missing.err
    assert genwright_here(project, "gate", "--record").code == 0
    held = genwright_here(project, "gate", "--json", "--latency", "100000")
    assert held.code == 0 and held.json["passed"], held.told
    assert {one["what"] for one in held.json["findings"]} == {"test rows", "seconds a token", "bytes", "merged"}
    fell = genwright_here(project, "gate", "--latency", "100000", "--url", served_nonsense())
    assert fell.code == 3 and "served" in fell.out and "largest gap" in fell.out
    baseline = json.loads((project / "gate.json").read_text())
    scores = baseline["quality"]["test rows"]["scores"]
    baseline["quality"]["test rows"]["scores"] = [100.0] * len(scores)
    (project / "gate.json").write_text(json.dumps(baseline))
    assert genwright_here(project, "gate", "--latency", "100000").code == 3
    (project / "gate.json").write_text("{}")
    broken = genwright_here(project, "gate")
    assert broken.code == 1 and "is no baseline" in broken.err


def test_forgetting_is_handed_on_behind_the_same_gate(
    tmp_path: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA, merged, made to forget by LoRA, merged: each merge is compared on the frozen prompts; one that fails ends the run."""
    project = write_project(
        tmp_path, kind="chat", task="chat", family="decoder", method="lora", objective="instruction"
    )
    sharpen(project / "model")
    row = lambda n, colour: json.dumps({"prompt": f"what colour is house number {n}", "completion": colour}) + "\n"
    (project / "forget.jsonl").write_text(row(1, "red") + row(2, "green"))
    (project / "retain.jsonl").write_text(row(3, "white") + row(4, "blue"))
    with (project / "genwright.toml").open("a") as file:
        file.write('\n[unlearn]\nforget = "forget.jsonl"\nretain = "retain.jsonl"\nadapter = "lora"\n')
        file.write("steps = 1\nbatch_size = 4\nrelearn_steps = 0\n")
    merges = ["merged before forgetting", "merged after forgetting"]

    moved = lambda *_, **__: Parity(0.5, same_tokens=False, prompts=8)
    with monkeypatch.context() as broken:
        broken.setattr("genwright.export.handover.merge_adapter", moved)
        failed = genwright_here(project, "apply")
        assert failed.code == 1 and "does not answer as the adapted one did" in failed.err

    done = genwright_here(project, "apply", "--json")
    parity = done.json["summaries"]["unlearn"]["parity"]
    assert list(parity) == merges and all(one["rows"] > 0 for one in parity.values()), done.told
    assert all(one["max_logit_difference"] < one["tolerance"] for one in parity.values())
    assert genwright_here(project, "gate", "--record").code == 0
    held, after = json.loads((project / "gate.json").read_text()), done.json["summaries"]["unlearn"]["after"]
    assert list(held["handoffs"]) == merges and all(one["passed"] for one in held["handoffs"].values())
    assert held["safety"] == {"recall of what was forgotten": pytest.approx(100 * after["forget"]["rouge_l"])}
    kept = held["quality"]["retain after forgetting"]
    assert len(set(kept["rows"])) == 2 and sum(kept["scores"]) == pytest.approx(
        200 * after["kept"]["retain"]["rouge_l"]
    )
    parity["merged after forgetting"]["max_logit_difference"] = 0.5
    found = recorded(project, {}, {"parity": parity})
    assert [found[name]["passed"] for name in merges] == [True, False]


def sharpen(folder: Path) -> Path:
    """A random model finds everything about as likely: ten times its head's weights make it choose."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 10
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def served_nonsense() -> str:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"content": "zebra zebra zebra"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_the_trained_models_own_answers_pass(tmp_path: Path, genwright_here: Callable) -> None:
    from tests.e2e.tiny import write_model

    from genwright.export.handoffs import read_answers
    from genwright.talk import open_session

    session = open_session(
        f"folder:{sharpen(write_model(tmp_path / 'model', 'decoder'))}",
        base=tmp_path,
        max_new_tokens=6,
        precision="fp32",
    )
    asked = [[{"role": "user", "content": text}] for text in ("what colour", "the red house")]
    own = read_answers(session, asked, session.replies(asked))
    assert own["passed"] and own["largest_gap"] == 0, own
    assert (
        not read_answers(session, asked, ["zebra", "zebra"])["passed"]
        and not read_answers(session, asked, ["", ""])["passed"]
    )
