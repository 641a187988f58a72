"""A project is applied and served by the real vLLM, past its parity gate: `genwright apply`, `genwright serve`, questions, `genwright usage`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import command, environment

from genwright.serve.engines.vllm import found_vllm

SERVE = '[integrate]\nmerge = false\n[serve]\nengine = "vllm"\n'


@pytest.mark.proof
@pytest.mark.skipif(not found_vllm(), reason="no vLLM: set GENWRIGHT_VLLM")
def test_what_apply_made_is_proven_served_by_vllm_and_refused_when_it_failed(
    project: Path, genwright: Callable, home: Path, monkeypatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    with (project / "genwright.toml").open("a") as file:
        file.write(SERVE)
    assert (done := genwright(project, "apply", "--json")).code in (0, 3), done.told
    with subprocess.Popen(
        command(project, "serve", "--port", "0", "--json"), stdout=subprocess.PIPE, text=True, env=environment(home)
    ) as process:
        lines = iter(process.stdout.readline, "}\n")
        told = json.loads("{" + "".join(lines).partition("{")[2] + "}")
        with httpx.Client(base_url=told["url"], timeout=60) as client:
            until = time.monotonic() + 400
            while client.get("/ready").status_code != 200 and time.monotonic() < until:
                time.sleep(0.5)
            for model, expert in (("auto", "short"), ("base", None)):
                body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
                answer = client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200 and answer.json()["genwright"]["expert"] == expert, answer.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    rows = genwright(project, "usage", "--by", "expert", "--json").json["usage"]
    assert [row["requests"] for row in rows] == [1, 1] and all(row["ttft_seconds"] > 0 for row in rows)
    proofs = sorted((project / ".genwright" / "serve" / "vllm").glob("*/parity.json"))
    assert len(proofs) == 2, "the base and its expert"
    (proof,) = (path for path in proofs if "@" in path.parent.name)
    record = json.loads(proof.read_text())
    assert record["passed"] and record["tokens"] > 0
    proof.write_text(json.dumps({**record, "largest_gap": 9.0}))
    refused = genwright(project, "serve", "--port", "0")
    assert refused.code == 1 and "'short'" in refused.err and "does not answer as the trained one did" in refused.err
