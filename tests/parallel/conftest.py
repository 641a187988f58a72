"""Real processes for this folder's tests: many cases in one start, because starting costs more than training."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.parallel import launch

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


@pytest.fixture(scope="session")
def launched() -> Callable[..., list[Any]]:
    """Call "function" of workers.py, or "module:function" of this folder, in some processes of one thread each."""

    def run(count: int, function: str, argument: Any) -> list[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", HERE, prepend=os.pathsep)
            return launch.run(count, function if ":" in function else f"workers:{function}", argument, threads=1)

    return run
