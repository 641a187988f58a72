"""Unpack the encoder all-MiniLM-L6-v2 to model/, as ../transfer does.

python make_model.py
"""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

HERE = Path(__file__).parent
TRANSFER = HERE.parent / "transfer"


def main() -> None:
    """Write model/ anew."""
    if not (TRANSFER / "model" / "model.safetensors").exists():
        runpy.run_path(str(TRANSFER / "make_model.py"))["main"]()
    shutil.copytree(TRANSFER / "model", HERE / "model", dirs_exist_ok=True)
    print(f"{HERE / 'model'}: the encoder of ../transfer")


if __name__ == "__main__":
    main()
