"""Stopped and resumed equals never stopped, bit for bit: for every objective and every adapter of the registries.

Through the whole consumer of the loop: a second model's columns, rounds of answers, validation, two microbatches a step,
and a stop in the middle of an epoch. Joining a registry joins this suite.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.improve.conftest import AfterPolls, trained

from genwright.base.errors import Interrupted
from genwright.base.events import read_events
from genwright.catalogue.parts import ADAPTERS, LAYOUTS, OBJECTIVES


def check(spec: Any, method: str, tmp_path: Path, polls: int) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = trained(spec, method, tmp_path / "whole")
    assert any(name.endswith(".safetensors") for name in whole)
    with pytest.raises(Interrupted, match="it is saved"):
        trained(spec, method, tmp_path / "cut", AfterPolls(polls))
    assert trained(spec, method, tmp_path / "cut") == whole
    losses = lambda name: [
        event["loss"] for event in read_events(tmp_path / name / "events.jsonl") if event["kind"] == "step"
    ]
    assert losses("cut") == losses("whole") and len(losses("whole")) == 4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(objective: str, tiny_spec: Callable, tmp_path: Path) -> None:
    """8 rows of 22 a step: after step 2 it is in the middle of an epoch, and at the end of GRPO's first round."""
    method = "lora" if LAYOUTS[OBJECTIVES[objective].layout].families[0] == "decoder" else "full"
    check(tiny_spec(objective, method), method, tmp_path, polls=1 if objective == "grpo" else 2)


@pytest.mark.parametrize("method", ADAPTERS)
def test_every_adapter(method: str, tiny_spec: Callable, tmp_path: Path) -> None:
    check(tiny_spec("instruction", method), method, tmp_path, polls=2)
