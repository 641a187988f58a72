"""Searched and lesson rungs all the way: made, judged on test rows, handed over, with a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.tiny import write_project

from genwright.models.cards import read_card
from genwright.plan.priced.roofline import Rates

SHORT = (
    "adapt.steps=1",
    "adapt.max_new_tokens=2",
    "adapt.validation_rows=2",
    "adapt.pairs=4",
    "adapt.pack_tokens=2048",
)


@pytest.fixture
def handed(
    tmp_path: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], Path]]:
    """(integrate's summary, its folder) of a tiny project of one rung."""
    monkeypatch.setattr(
        "genwright.plan.here.rungs.calibrate", lambda *_, **__: Rates(bytes_per_second=1e9, flops_per_second=1e9)
    )

    for room in ("plan.here.verify", "improve.training"):
        monkeypatch.setattr(f"genwright.{room}.release_freed_memory", lambda: None)

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
