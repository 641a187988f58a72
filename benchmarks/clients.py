"""Clients that people have, unchanged, before our gateway: `openai`, LangChain's, `llm` and `curl`, each asked what it offers.

    python benchmarks/clients.py [--python VENV/bin/python] [--keep]

The clients are installed from the package index in an environment of their own (--python: one that has them); the server is the
product's gateway around llama.cpp with a tiny model of random weights, or SmolLM2 (--model smollm2), so only shapes are judged.
--keep writes benchmarks/results/serve_clients.json. Exit code 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import write_result
from serve_real import gateway, small_model

HERE = Path(__file__).parent
CLIENTS = ("openai==3.54.0", "langchain-openai==1.7.3", "llm==0.36")
CONTEXT = 1024
SECONDS = 180

OPENAI = """
import openai
client = openai.OpenAI(base_url=url, api_key="none")
asked = dict(model="auto", messages=[{"role": "user", "content": "the red house"}], max_tokens=6)
whole = client.chat.completions.create(**asked)
found["chat"] = whole.usage.completion_tokens == 6 and whole.choices[0].message.content is not None
pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
found["stream"] = pieces[-1].usage.completion_tokens == 6
found["completion"] = client.completions.create(model="auto", prompt="the red house", max_tokens=3).usage.completion_tokens == 3
vectors = client.embeddings.create(model="auto", input=["the red house", "a river"])
found["embeddings"] = [len(one.embedding) for one in vectors.data] == [len(vectors.data[0].embedding)] * 2
found["models"] = "auto" in [one.id for one in client.models.list()]
try:
    client.chat.completions.create(model="nobody", messages=asked["messages"])
except openai.NotFoundError:
    found["error"] = True
"""

LANGCHAIN = """
from typing import Literal
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
class Answer(BaseModel):
    colour: Literal["red", "green"]
def look(at: Literal["house"]) -> str:
    "Look at a place."
    return at
model = ChatOpenAI(base_url=url, api_key="none", model="auto", max_tokens=64)
told = model.invoke("the red house")
found["chat"] = told.usage_metadata["output_tokens"] > 0 and told.response_metadata["model_name"] != ""
found["stream"] = sum(len(one.content) for one in model.stream("the red house")) > 0
found["batch"] = len(model.batch(["one", "two"])) == 2
found["structured"] = model.with_structured_output(Answer, method="json_schema").invoke("colour?").colour in ("red", "green")
bound = ChatOpenAI(base_url=url, api_key="none", model="auto", max_tokens=128, temperature=0).bind_tools([look], tool_choice="required")
told = bound.invoke("look")
found["tools"] = told.usage_metadata["output_tokens"] > 0  # a template that knows no tools answers in words
found["completion"] = len(OpenAI(base_url=url, api_key="none", model="auto", max_tokens=6).invoke("the red house")) > 0
"""

LANGCHAIN_ASYNC = """
import asyncio
async def pieces():
    return [one.content async for one in model.astream("the red house")]
found["async stream"] = len(asyncio.run(pieces())) > 0
"""


def in_python(python: str, url: str, code: str) -> dict[str, Any]:
    """Check -> whether it held, of code that fills `found`; "failed" with the last line of what went wrong."""
    script = f"import json\nurl, found = {url!r} + '/v1', {{}}\ntry:\n" + "".join(
        f"    {line}\n" for line in code.strip().splitlines()
    )
    script += "except Exception as error:\n    found['failed'] = f'{type(error).__name__}: {error}'[:300]\nprint(json.dumps(found))"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False)
    try:
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        return {"failed": " ".join(done.stderr.strip().splitlines()[-1:])}


def llm(python: str, url: str, folder: Path) -> dict[str, Any]:
    """Simon Willison's `llm`, told of the server as its documentation says: whole and streamed."""
    folder.mkdir()
    model = f'- model_id: ours\n  model_name: auto\n  api_base: "{url}/v1"\n'
    (folder / "extra-openai-models.yaml").write_text(model)
    environment = {**os.environ, "LLM_USER_PATH": str(folder)}
    found: dict[str, Any] = {}
    for name, more in (("stream", []), ("chat", ["--no-stream"])):
        words = [str(Path(python).with_name("llm")), "-m", "ours", "the red house", "-o", "max_tokens", "6", *more]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
        )  # fmt: skip
        found[name] = done.returncode == 0 and bool(done.stdout.strip())
        if not found[name]:
            found["failed"] = done.stderr[-300:]
    return found


def curl(url: str) -> dict[str, Any]:
    """As OpenAI's documentation writes it; and without a content type, which is told what is wanted."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "the red house"}], "max_tokens": 6}

    def asked(*words: str, **more: Any) -> str:
        told = ["curl", "-sS", "-i", f"{url}/v1/chat/completions", "-d", json.dumps({**body, **more}), *words]
        return subprocess.run(told, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    head = ("-H", "Content-Type: application/json")
    whole, stream = asked(*head), asked(*head, stream=True)
    return {
        "chat": whole.startswith("HTTP/1.1 200") and '"completion_tokens":6' in whole.replace(" ", ""),
        "stream": stream.rstrip().endswith("data: [DONE]"),
        "explains": "application/json" in asked(),
    }


def environment(folder: Path) -> str:
    """A Python that has the clients."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *CLIENTS], check=True)
    return python


def clients(python: str, url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Client -> check -> whether it held."""
    asked: dict[str, Callable[[], dict[str, Any]]] = {
        "openai": lambda: in_python(python, url, OPENAI),
        "langchain-openai": lambda: in_python(python, url, LANGCHAIN + LANGCHAIN_ASYNC),
        "llm": lambda: llm(python, url, folder / "llm"),
    }
    if shutil.which("curl"):
        asked["curl"] = lambda: curl(url)
    return {name: ask() for name, ask in asked.items()}


def main() -> int:
    """Ask, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="", help="of an environment that has the clients")
    parser.add_argument("--model", default="tiny", choices=("tiny", "smollm2"))
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        folder = Path(work)
        python = chosen.python or environment(folder / "venv")
        base, gguf = small_model(folder, chosen.model)
        with gateway(gguf, base, folder, CONTEXT) as (port, _):
            found = clients(python, f"http://127.0.0.1:{port}", folder)
    print(json.dumps(found, indent=1))
    if chosen.keep:
        write_result(HERE / "results" / "serve_clients.json", clients=found, installed=CLIENTS, model=chosen.model)
    return int(not all(held is True for checks in found.values() for held in checks.values()))


if __name__ == "__main__":
    sys.exit(main())
