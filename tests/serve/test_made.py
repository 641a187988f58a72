"""A searched prompt is served as it was judged: the same messages as `improve.solution` puts to the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genwright.data.files import write_rows
from genwright.data.formats import Row
from genwright.improve.examples import NearestExamples
from genwright.improve.solution import Answering, Solution
from genwright.serve.made import _examples

ROWS = [
    Row(
        "chat",
        messages=({"role": "user", "content": f"question {n} of {word}"}, {"role": "assistant", "content": word}),
    )
    for n, word in enumerate(["red", "green", "blue", "white"])
]
ASKED = [{"role": "user", "content": "question of blue"}]


@pytest.mark.parametrize("prompt", [
    {"examples": 2, "instruction": "", "nearest_last": True}, {"examples": 2, "instruction": "Say a colour.", "nearest_last": False},
    {"examples": 0, "instruction": "Say a colour.", "nearest_last": True},
])  # fmt: skip
def test_the_form_in_which_it_was_judged(tmp_path: Path, prompt: dict[str, Any]) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "prompt.json").write_text(json.dumps({"rung": "prompt-search", **prompt}))
    store = SimpleNamespace(latest=lambda stage: tmp_path)
    judged = SimpleNamespace(
        solution=Solution("prompt-search", "", **prompt),
        nearest=NearestExamples(ROWS),
        _fits=lambda put, room: True,
    )
    assert _examples(store, tmp_path)(ASKED) == Answering.with_examples(judged, ASKED)


def test_a_result_without_a_prompt_is_asked_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps({"rung": "lora", "examples": 0}))
    assert _examples(SimpleNamespace(latest=lambda stage: tmp_path), tmp_path) is None
