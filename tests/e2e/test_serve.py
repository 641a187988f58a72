"""A project is applied for llama.cpp and served, as a person does it: `genwright apply`, `genwright serve`, a question, `genwright usage`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from tests.e2e.conftest import command, environment


def test_what_apply_made_is_served_metered_and_refused_when_changed(
    project: Path, genwright: Callable, home: Path
) -> None:
    with (project / "genwright.toml").open("a") as file:
        file.write('[integrate]\nengine = "llamacpp"\n')
    done = genwright(project, "apply", "--json")
    assert done.code in (0, 3), done.told
    assert done.json["summaries"]["integrate"]["served"]["passed"]
    with subprocess.Popen(
        command(project, "serve", "--port", "0", "--json"), stdout=subprocess.PIPE, text=True, env=environment(home)
    ) as process:
        told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        with httpx.Client(base_url=told["url"], timeout=30) as client:
            until = time.monotonic() + 60
            while client.get("/ready").status_code != 200 and time.monotonic() < until:
                pass
            answer = client.post(
                "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
            )
            assert answer.status_code == 200 and answer.json()["genwright"]["joules_source"] in (
                "estimated",
                "rapl",
                "nvml",
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    usage = genwright(project, "usage", "--by", "expert", "--json")
    assert (
        usage.json["usage"][0]["requests"] == 1
        and usage.json["usage"][0]["generated_tokens"] == answer.json()["usage"]["completion_tokens"]
    )
    gguf = next((project / ".genwright").rglob("model.gguf"))
    gguf.chmod(0o644)
    gguf.write_bytes(gguf.read_bytes() + b"x")
    refused = genwright(project, "serve", "--port", "0")
    assert refused.code == 1 and "not the file that passed the parity gate" in refused.err
