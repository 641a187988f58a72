"""lm-eval's own command put to a running `genwright serve` says what `genwright evaluate` says of the same server and the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import command, environment

pytest.importorskip("lm_eval")
pytest.importorskip("tenacity", reason="lm-eval asks addresses with lm-eval[api]")
pytestmark = pytest.mark.proof

PROMPTS = [f"read_{word}(self, name)" for word in ("line", "all", "file", "part", "page", "word", "data")]
PROMPTS += [
    "suffixes(self)",
    "from_subprocess()",
    "element_create(self, elementname, etype, *args, **kw)",
    "the",
    "a house",
]
KEYS = 'form = "generation"\nfile = "{name}.jsonl"\nmax_tokens = 8\nstops = ["\\n"]\nchat = {chat}\n'


@pytest.fixture(scope="module")
def served(short_project: Path, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[tuple[Path, str]]:
    """A project that was applied for llama.cpp, and the address at which it is served."""
    import shutil

    project = Path(shutil.copytree(short_project, tmp_path_factory.mktemp("served") / "project"))
    with (project / "genwright.toml").open("a") as file:
        file.write('[integrate]\nengine = "llamacpp"\n')
    done = subprocess.run(command(project, "apply"), capture_output=True, text=True, env=environment(home), timeout=300)
    assert done.returncode in (0, 3), done.stderr
    with subprocess.Popen(
        command(project, "serve", "--port", "0", "--json"), stdout=subprocess.PIPE, text=True, env=environment(home)
    ) as process:
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        until = time.monotonic() + 60
        while httpx.get(f"{url}/ready").status_code != 200 and time.monotonic() < until:
            pass
        yield project, url
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def evaluated(genwright: Callable, project: Path, url: str, suite: Path) -> dict[str, Any]:
    out = suite.parent / "out"
    done = genwright(project, "evaluate", f"far={url}/v1", "--suite", str(suite), "--out", str(out))
    assert done.code == 0, done.told
    return json.loads((out / "evaluate.json").read_text())["suites"][0]["systems"]["far"]


@pytest.mark.parametrize(("model", "path", "chat"), [
    ("local-completions", "completions", False), ("local-chat-completions", "chat/completions", True),
])  # fmt: skip
def test_the_command_and_our_suite_score_a_server_alike(
    served: tuple[Path, str], genwright: Callable, home: Path, tmp_path: Path, model: str, path: str, chat: bool
) -> None:
    project, url = served
    suite, rows = tmp_path / "own.toml", [{"prompt": prompt, "reference": "x"} for prompt in PROMPTS]
    suite.write_text(KEYS.format(name="own", chat=str(chat).lower()))
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = evaluated(genwright, project, url, suite)["answers"]
    right = [number for number, text in enumerate(said) if text.strip()][::2]
    assert 0 < len(right) < len(rows)
    rows = [{**row, "reference": f" {said[number]}" if number in right else "no"} for number, row in enumerate(rows)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    tasks = tmp_path / "tasks"
    assert genwright(project, "evaluate", "--suite", str(suite), "--write-tasks", str(tasks)).code == 0
    ours = evaluated(genwright, project, url, suite)
    told = f"model=auto,base_url={url}/v1/{path},tokenizer_backend=None,tokenized_requests=False,num_concurrent=1"
    words = ["run", "--model", model, "--model_args", told, "--tasks", "own", "--include_path", str(tasks), "--log_samples",
             "--output_path", str(tmp_path / "theirs"), *(["--apply_chat_template"] if chat else [])]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], capture_output=True, text=True, timeout=300,
        env={**environment(home), "OPENAI_API_KEY": "none", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(next((tmp_path / "theirs").rglob("results_*.json")).read_text())["results"]["own"]
    wanted = 100 * len(right) / len(rows)  # the mean of hundreds and a hundred means differ by one bit of a float
    assert f"{ours['value']:.12f}" == f"{100 * theirs['exact_match,none']:.12f}" == f"{wanted:.12f}"
    samples = map(json.loads, next((tmp_path / "theirs").rglob("samples_*.jsonl")).read_text().splitlines())
    answers = [one["filtered_resps"][0] for one in sorted(samples, key=lambda one: one["doc_id"])]
    assert answers == [one.strip() for one in ours["answers"]]
