"""Selecting: hard limits first, then what the project's own rows say, and the cheapest of those not shown to be worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.e2e.tiny import write_model, write_project

from genwright import stages
from genwright.base.errors import ModelError
from genwright.base.events import Events
from genwright.catalogue.models import models
from genwright.improve.selecting import choice, nearest_classes
from genwright.models.choose import limits
from genwright.project.apply import Context
from genwright.project.spec import override, read_spec

ANY = SimpleNamespace(licences=(), languages=(), context=0)


def test_equal_quality_is_decided_by_cost_and_worse_quality_is_not() -> None:
    right, nearly, wrong = [100.0] * 40, [100.0] * 39 + [0.0], [0.0] * 40
    groups = [str(number) for number in range(40)]
    assert choice([right, nearly, wrong], [9.0, 2.0, 1.0], groups) == 1
    assert choice([wrong, None, right], [1.0, 0.0, 9.0], groups) == 2
    assert choice([right, wrong], [1.0, 2.0], groups, higher_is_better=False) == 1
    assert choice([None, None], [2.0, 1.0], groups) == 0


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"licences": ("MIT",)}, "its licence is Apache-2.0"),
        ({"languages": ("fr",)}, "it does not know fr"),
        ({"context": 10_000}, "its context is 8,192 tokens"),
    ],
)
def test_a_card_that_breaks_a_limit_says_which(select: dict[str, Any], told: str) -> None:
    card = models()["smollm2-135m-instruct"]
    wanted = SimpleNamespace(**{**vars(ANY), **select})
    assert limits(card, wanted, ["decoder"], 1e12) == [told]
    assert limits(replace(card, licence="mit", languages=("fr",), context=None), wanted, ["decoder"], 1e12) == []


def test_family_and_memory_are_limits_too() -> None:
    card = models()["smollm2-135m-instruct"]
    assert limits(card, ANY, ["encoder"], 1e12) == ["it is an decoder, and wanted is encoder"]
    assert limits(card, ANY, ["decoder"], 1e6)[0].startswith("its weights need ")


@pytest.fixture
def selected(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Select's summary of a tiny project with an encoder and a decoder."""

    def run(*changes: str) -> dict[str, Any]:
        write_project(
            tmp_path,
            kind="labelled",
            task="classification",
            family="decoder",
            method="lora",
            objective="",
            metric="accuracy",
        )
        write_model(tmp_path / "encoder", "encoder")
        spec = read_spec(tmp_path / "genwright.toml")
        for change in ('select.models=["./model", "./encoder"]', "hardware.watts=10.0", "adapt.examples=1", *changes):
            spec = override(spec, change)
        events = Events(tmp_path / "events.jsonl", ())
        context = lambda name, inputs: Context(spec, inputs, tmp_path / name, tmp_path, events, lambda: False, tmp_path)
        (tmp_path / "scope").mkdir()
        (tmp_path / "select").mkdir()
        stages.scope(context("scope", {}))
        (tmp_path / "scope" / "test.jsonl").write_text("this must not be read")
        return stages.select(context("select", {"scope": tmp_path / "scope"}))

    return run


def test_an_encoder_and_a_decoder_stand_in_one_table(selected: Callable[..., dict[str, Any]]) -> None:
    summary = selected()
    decoder, encoder = summary["table"]
    assert (decoder["family"], encoder["family"]) == ("decoder", "encoder")
    assert decoder["zero-shot"]["n"] == decoder["few-shot"]["n"] == encoder["few-shot"]["n"] > 0
    assert encoder["zero-shot"] is None and "nearest class" in encoder["how"]
    for line in (decoder, encoder):
        assert line["planned"]["host_bytes"] > 0 and line["planned"]["joules_per_1000"] > 0
        assert line["planned"]["usd_per_1000"] is None
    assert summary["model"] == next(line["name"] for line in summary["table"] if line["taken"])


def test_one_model_is_not_tried_and_a_refused_one_names_the_limit(selected: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match=r"(?s)outside of the project's limits: its licence is not known"):
        selected('select.models=["./model"]', 'select.licences=["MIT"]')


def test_nearest_classes_are_those_of_equal_texts(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "encoder")
    rows = [
        SimpleNamespace(text=text, label=text.split()[0]) for text in ("red house 1", "blue sky here", "green tree")
    ]
    assert nearest_classes(folder, rows, rows, "fp32") == ["red", "blue", "green"]  # type: ignore[arg-type]
