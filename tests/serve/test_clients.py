"""Clients that others wrote, installed as people install them, against our gateway and the real llama.cpp: nothing is changed for us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "clients.py"
CHECKS = {
    "openai": {"chat", "stream", "completion", "embeddings", "models", "error"},
    "langchain-openai": {"chat", "stream", "batch", "structured", "tools", "completion", "async stream"},
    "llm": {"stream", "chat"},
}


@pytest.mark.proof
@pytest.mark.network
def test_clients_of_others_work_unchanged() -> None:
    """GENWRIGHT_CLIENTS: a Python that has them; else they are installed for this."""
    given = ["--python", os.environ["GENWRIGHT_CLIENTS"]] if "GENWRIGHT_CLIENTS" in os.environ else []
    done = subprocess.run([sys.executable, str(BENCHMARK), *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {name: set(found[name]) for name in CHECKS} == CHECKS
