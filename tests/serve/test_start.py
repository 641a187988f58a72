"""What a gateway loads before it listens: counted, since seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

LATER = (
    "numpy", "aiohttp", "onnxruntime", "tokenizers", "torch", "transformers", "peft", "scipy", "pyarrow", "xllamacpp", "openai",
    "schemathesis", "pydantic", "sklearn", "jsonschema",
)  # fmt: skip
MOST_MODULES = 420
"""350 on 2026-11-21, with Python 3.11."""

START = """
import json, sys
import genwright.cli, genwright.cli.serve, genwright.serve.house, genwright.serve.server
print(json.dumps(sorted(sys.modules)))
"""


def test_the_gateway_starts_without_what_only_an_engine_a_router_or_a_guard_needs() -> None:
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
    )
    assert not set(LATER) & set(loaded)
    assert len(loaded) < MOST_MODULES, f"{len(loaded)} modules"
