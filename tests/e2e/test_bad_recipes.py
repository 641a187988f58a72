"""What cannot be trained is said by `plan`, in a sentence and with exit code 2, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.tiny import write_project

BASE = {"kind": "chat", "task": "chat", "family": "decoder", "method": "lora", "objective": "instruction"}
GRPO = {"objective": "grpo", "metric": "exact-match", "adapt": 'reward = "rewards.py:score"'}


def refuse(run: Callable, folder: Path, wanted: str, **changes: str) -> None:
    done = run(folder, "plan")
    assert done.code == 2, done.told
    assert wanted in done.err, done.err
    assert not (folder / ".genwright" / "artifacts").exists()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"kind": "text", "objective": "dpo"}, "preference"),
        ({"objective": "masked", "kind": "text"}, "Masked cannot be learned by this model"),
        ({"adapt": "[adapt.lora]\ntargets = ['no_such_layer']"}, "no_such_layer"),
        ({"adapt": "[hardware]\nstrategy = 'zero3'"}, "2 devices"),
        ({"adapt": "[hardware]\ndevice = 'h100'"}, "h100"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, genwright_here: Callable, changes: dict[str, str], wanted: str) -> None:
    folder = write_project(tmp_path, **{**BASE, **changes})
    refuse(genwright_here, folder, wanted)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("raise ValueError('no such answer')", "no such answer"),
        ("return float('nan')", "says nan"),
        ("return 'good'", "failed"),
    ],
)
def test_a_reward_that_fails(tmp_path: Path, genwright_here: Callable, body: str, wanted: str) -> None:
    folder = write_project(tmp_path, **{**BASE, **GRPO})
    (folder / "rewards.py").write_text(f"def score(prompt, answer, reference):\n    {body}\n")
    refuse(genwright_here, folder, wanted)


def test_a_tokenizer_without_a_mask(tmp_path: Path, genwright_here: Callable) -> None:
    folder = write_project(
        tmp_path,
        **{
            **BASE,
            "kind": "text",
            "task": "pre-training",
            "family": "encoder",
            "objective": "masked",
            "method": "full",
        },
    )
    file = folder / "model" / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"mask_token": "[MASK]"', '"unk_token": "[PAD]"'))
    refuse(genwright_here, folder, "mask")
