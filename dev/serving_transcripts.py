"""The transcripts of docs/serving.md, made by running what they show: python dev/serving_transcripts.py

SmolLM2-135M (from the cache) in llama.cpp, `genwright serve` before it as a remote engine, and curl and the openai client as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from serve_parts import free_port, process  # noqa: E402
from serve_real import gateway, small_model  # noqa: E402

PAGE, MARK = ROOT / "docs" / "serving.md", "<!-- transcripts: written by dev/serving_transcripts.py -->\n"
PROJECT = """[project]
name = "assistant"
[scope]
task = "chat"
[data]
train = "rows.jsonl"
[serve]
url = "{url}"
usd_per_million_prompt = 0.05
usd_per_million_generated = 0.20
"""
ASK = (
    """'{"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 12, """
    """"temperature": 0%s}'"""
)
CHAT = "curl -s %s http://127.0.0.1:%d/v1/chat/completions -H 'Content-Type: application/json' -H \"Authorization: Bearer $KEY\" -d "
OPENAI = """python - <<'EOF'
import openai
client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1")          # OPENAI_API_KEY is the key
question = [{"role": "user", "content": "Say hello in French."}]
for piece in client.chat.completions.create(model="auto", messages=question, max_tokens=8, stream=True):
    print(piece.choices[0].delta.content if piece.choices else piece.genwright, end=" ", flush=True)
EOF"""


def shell(line: str, folder: Path, key: str) -> str:
    """A command and what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S602 the lines are our own, above
        line,
        shell=True,
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "KEY": key, "OPENAI_API_KEY": key, "PATH": path},
    )
    return f"$ {line}\n{(done.stdout + done.stderr).strip()}\n"


def transcripts(folder: Path, port: int, key: str) -> list[tuple[str, str]]:
    """(what it shows, the transcript)."""
    lines = [
        ("Who answered, and why, is in the head of every answer", CHAT % ("-D -", port) + ASK % ""),
        ("A stream ends with what it took", CHAT % ("", port) + ASK % ', "stream": true' + " | tail -n 4"),
        ("The official client, unchanged", OPENAI % port),
        ("Without a key", f"curl -s http://127.0.0.1:{port}/v1/models"),
        (
            "What is wrong is named",
            CHAT % ("", port) + """'{"messages": [{"role": "user", "content": "hi"}], "temperature": 9}'""",
        ),
        ("What was used, by key", "genwright usage --by key"),
    ]
    return [(title, shell(line, folder, key)) for title, line in lines]


def main() -> None:
    """Run, and write the page's last part anew."""
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        folder, project = Path(work), Path(work, "assistant")
        project.mkdir()
        base, gguf = small_model(folder, "smollm2")
        with gateway(gguf, base, folder, 1024):
            url = (folder / "engine.json").read_text().strip('"')
            (project / "genwright.toml").write_text(PROJECT.format(url=url))
            made = shell("genwright serve --add-key ann --limit tokens_per_day=100000", project, "")
            key = re.search(r"gw-\S+", made).group()  # type: ignore[union-attr]
            port = free_port()
            with process(
                [sys.executable, "-m", "genwright", "serve", "--project", str(project), "--port", str(port)], port, None
            ):
                told = [("A key", made), *transcripts(project, port, key)]
                told = [(title, text.replace(key, f"{key[:7]}...").replace(str(port), "8000")) for title, text in told]
        port = free_port()
        with process(
            [sys.executable, "-m", "genwright", "serve", "--project", str(project), "--port", str(port)], port, None
        ):
            down = (
                "While the engine is down",
                shell(CHAT % ("-D -", port) + ASK % "", project, key).replace(str(port), "8000"),
            )
    told = [(title, shown.replace(url.rsplit(":", 1)[1], "9000")) for title, shown in [*told, down]]
    text = "\n".join(f"**{title}**\n\n```console\n{text.strip()}\n```\n" for title, text in told)
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n" + text)


if __name__ == "__main__":
    main()
