"""LiteLLM's proxy before an engine, as its own quick start has it: one worker, a config file, no database, no keys, no logging.

.venv/bin/python run.py --engine http://127.0.0.1:9000 --port 9001
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

CONFIG = {
    "general_settings": {"disable_spend_logs": True, "dangerously_permit_weak_or_unset_master_key": True},
    "litellm_settings": {"telemetry": False, "set_verbose": False, "drop_params": True, "num_retries": 0},
}


def config_of(engine: str) -> dict[str, object]:
    """One model, `fake`, at the engine's address."""
    told = {"model": "openai/fake", "api_base": f"{engine}/v1", "api_key": "none"}
    return {**CONFIG, "model_list": [{"model_name": "fake", "litellm_params": told}]}


def main() -> None:
    """Become the proxy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="")
    parser.add_argument("--port", default="")
    parser.add_argument("--versions", action="store_true", help="print versions and leave")
    chosen = parser.parse_args()
    if chosen.versions:
        print(
            json.dumps(
                {name: metadata.version(name) for name in ("litellm", "uvicorn", "fastapi", "aiohttp", "uvloop")}
            )
        )
        return
    config = Path(tempfile.mkdtemp(prefix="litellm-")) / "config.yaml"
    config.write_text(json.dumps(config_of(chosen.engine)))  # JSON is YAML
    program = str(Path(sys.executable).with_name("litellm"))
    os.environ |= {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"}
    os.execv(
        program, [program, "--config", str(config), "--host", "127.0.0.1", "--port", chosen.port, "--num_workers", "1"]
    )


if __name__ == "__main__":
    main()
