"""The command line starts without the heavy libraries: registry strings are invisible to a linter, so we look."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "numpy", "safetensors", "tokenizers", "pyarrow", "sacrebleu"}

PROBE = """
import json, sys
before = set(sys.modules)
from genwright.cli import main
code = main(sys.argv[1:])
files = [getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before]
print(json.dumps({"code": code, "new": sorted(set(sys.modules) - before), "files": sorted(files)}), file=sys.stderr)
"""


def run_in_fresh_process(*words: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("words", ["--help", "tasks", "tasks --json", "devices", "models list", "plan --help"])
def test_the_catalogue_needs_no_heavy_library(words: str) -> None:
    seen = run_in_fresh_process(*words.split())
    assert seen["code"] == 0
    assert not HEAVY & set(seen["new"])


def test_help_reads_next_to_nothing() -> None:
    seen = run_in_fresh_process("--help")
    ours = [name for name in seen["new"] if name.startswith("genwright")]
    assert len(ours) <= 6, ours  # genwright, cli, base, errors, registry: no verb's own module
    foreign = [file for file in seen["files"] if "site-packages" in file]
    assert not foreign, "the help page loads third-party packages"


def test_the_probe_sees_torch() -> None:
    """The test above can fail."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace("code = main(sys.argv[1:])", "import numpy; code = 0")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert HEAVY & set(json.loads(done.stderr.splitlines()[-1])["new"])
