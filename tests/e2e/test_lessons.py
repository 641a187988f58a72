"""Searched and lesson rungs all the way: made, judged on test rows, handed over, with a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.e2e.tiny import write_project
from transformers import AutoModelForCausalLM

from genwright.models.cards import read_card
from genwright.plan.priced.roofline import Rates
from genwright.project.spec import override, read_spec
from genwright.talk import chat_session

SHORT = (
    "adapt.steps=1",
    "adapt.max_new_tokens=2",
    "adapt.validation_rows=2",
    "adapt.pairs=4",
    "adapt.pack_tokens=2048",
)


def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured that takes seconds."""
    monkeypatch.setattr(
        "genwright.plan.here.rungs.calibrate", lambda *_, **__: Rates(bytes_per_second=1e9, flops_per_second=1e9)
    )
    for room in ("plan.here.verify", "improve.training"):
        monkeypatch.setattr(f"genwright.{room}.release_freed_memory", lambda: None)


@pytest.fixture
def handed(
    tmp_path: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], Path]]:
    """(integrate's summary, its folder) of a tiny project of one rung."""
    patched(monkeypatch)

    def run(rung: str, **project: str) -> tuple[dict[str, Any], Path]:
        write_project(tmp_path, method=rung, objective="", **project)
        words = [word for change in SHORT for word in ("--set", change)]
        done = genwright_here(tmp_path, "apply", "--json", *words)
        assert done.code == 0, done.told
        note = next(
            path for path in (tmp_path / ".genwright").rglob("integrate.json") if (path.parent / "README.md").exists()
        )
        return json.loads(note.read_text()), note.parent

    return run


def test_lora_of_a_searched_rank_is_merged(handed: Callable) -> None:
    integrate, folder = handed("lora-search", kind="chat", task="chat", family="decoder")
    assert integrate["form"] == "merged" and integrate["parity"]["max_logit_difference"] < 1e-3
    assert integrate["prompt"] == {"rung": "lora-search", "instruction": "", "examples": 0, "nearest_last": True}
    assert "lora-search" in (folder / "README.md").read_text()


def test_an_encoder_reads_on_and_then_sorts(handed: Callable) -> None:
    integrate, folder = handed(
        "pre-training", kind="labelled", task="classification", family="encoder", metric="accuracy"
    )
    assert integrate["form"] == "model"
    config = json.loads((folder / "model" / "config.json").read_text())
    assert sorted(config["id2label"].values()) == ["blue", "green", "red", "white"]
    assert "**Recipe of reading**" in read_card((folder / "README.md").read_text()).details


def test_a_preferred_model_is_one_model(handed: Callable) -> None:
    integrate, folder = handed("preference", kind="chat", task="chat", family="decoder")
    assert integrate["form"] == "model" and (folder / "model" / "model.safetensors").exists()


def test_a_lesson_that_was_stopped_can_be_talked_to(
    tmp_path: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DPO over what LoRA left, stopped before it is folded in: the checkpoint answers as peft's own model of both does."""
    patched(monkeypatch)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genwright.improve.attempting.fold", stopped)
    write_project(tmp_path, kind="chat", task="chat", family="decoder", method="", objective="")
    settings = tmp_path / "genwright.toml"
    own = ('ladder = ["lora", "preference"]', "checkpoint_every = 1", "learning_rate = 0.01")
    settings.write_text(settings.read_text().replace('method = ""', "\n".join(own)) + "\n")
    words = [word for change in ("adapt.steps=2", *SHORT[1:], "scope.target=101.0") for word in ("--set", change)]
    assert genwright_here(tmp_path, "apply", *words).code == 130

    (made,) = (tmp_path / ".genwright" / "work" / "adapt").iterdir()
    lessons = made / "preference" / "lessons"
    spec = override(read_spec(settings), "adapt.steps=2")
    for change in (*SHORT[1:], "scope.target=101.0"):
        spec = override(spec, change)
    session = chat_session(spec, tmp_path, at="preference: aligning step 2")
    ids = torch.tensor([[5, 6, 7, 8]])
    start = AutoModelForCausalLM.from_pretrained(lessons / "start", dtype=torch.float32)
    before = start(ids).logits
    taught = PeftModel.from_pretrained(start, lessons / "aligning" / "adapter")
    torch.testing.assert_close(session.answering.model(ids).logits, taught(ids).logits, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before, session.answering.model(ids).logits, atol=1e-5)
    refused = genwright_here(tmp_path, "chat", "--at", "step 9", "--ask", "x", *words)
    assert refused.code == 2 and "preference: aligning step 2" in refused.err
