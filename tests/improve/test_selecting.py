"""Selecting: hard limits first, then what the project's own rows say, and the cheapest of those not shown to be worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.e2e.tiny import write_model, write_project

from genwright import stages
from genwright.base.errors import ModelError
from genwright.base.events import Events
from genwright.catalogue.models import models
from genwright.improve.selecting import choice, nearest_classes, priced
from genwright.models.choose import limits
from genwright.plan.estimate import Estimate, Range
from genwright.project.apply import Context
from genwright.project.spec import override, read_spec
from genwright.project.tables import Hardware

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
def selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Select's summary of a tiny project with an encoder and a decoder."""
    monkeypatch.setattr("genwright.improve.selecting.devices_here", lambda: ("cpu", 2))

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
    summary = selected("select.trial_rows=2")
    decoder, encoder = summary["table"]
    assert (decoder["family"], encoder["family"]) == ("decoder", "encoder")
    assert decoder["zero-shot"]["n"] == decoder["few-shot"]["n"] == encoder["few-shot"]["n"] == 2
    assert encoder["zero-shot"] is None and "nearest class" in encoder["how"]
    for line in (decoder, encoder):
        assert line["planned"]["host_bytes"] > 0 and line["planned"]["joules_per_1000"] > 0
        assert (
            line["planned"]["usd_per_1000"] > 0
            and line["planned"]["looked_up"] == "0.0496 USD an hour: the catalogue's cpu-2, not stated by the project"
        )
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


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans by a table: the decoder needs 3 GiB, half as much again to train, and two hours, the encoder 1 GiB and one."""
    of = lambda shop: 2 if shop.family == "decoder" else 1
    exactly = lambda value: Range(value, value, value)
    plan = lambda shop, *rung: Estimate({
        "host_bytes": exactly((2 * of(shop) - 1) * (1.5 if rung else 1.0) * 2.0**30),
        "evaluate_seconds": exactly(60.0), "seconds": exactly(3600.0 * of(shop)),
    })  # fmt: skip
    monkeypatch.setattr("genwright.improve.selecting.plan_answers", plan)
    monkeypatch.setattr("genwright.improve.selecting.plan_rung", plan)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("hardware.memory='2 GiB'", "answering needs at least 3 GiB of memory, and 2 GiB may be used"),
        ("hardware.memory='4 GiB'", "lora needs at least 4.5 GiB of memory, and 4 GiB may be used"),
        ("scope.budget.hours=1.5", "lora needs up to 2 hours, and the budget is 1.5"),
        ("scope.budget.kwh=0.015", "lora needs up to 0.02 kwh, and the budget is 0.015"),
    ],
)
def test_a_plan_beyond_memory_or_budget_is_not_tried_and_not_taken(
    selected: Callable[..., dict[str, Any]], planned: None, limit: str, told: str
) -> None:
    summary = selected(limit)
    decoder, encoder = summary["table"]
    assert decoder["why"] == told and decoder["few-shot"] is None and not decoder["taken"]
    assert encoder["taken"] and summary["model"] == encoder["name"]


def test_where_no_plan_is_within_the_limits_all_reasons_are_told(
    selected: Callable[..., dict[str, Any]], planned: None
) -> None:
    with pytest.raises(
        ModelError,
        match=r"(?s)None of the models fits.*model: lora needs up to 2 hours.*encoder: lora needs.*scope.budget",
    ):
        selected("scope.budget.hours=0.5")


def test_what_the_project_states_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = lambda **stated: Some(Hardware(**{"device": "h200", **stated}))
    both, told = priced(spec())
    assert (both.hardware.watts, both.hardware.usd_per_hour) == (700, 3.5)
    assert told == "700 W, 3.5 USD an hour: the catalogue's h200, not stated by the project"
    one, told = priced(spec(watts=10.0))
    assert (one.hardware.watts, one.hardware.usd_per_hour) == (10.0, 3.5) and told.startswith("3.5 USD")
    assert priced(spec(watts=1.0, usd_per_hour=1.0))[1] == ""
    monkeypatch.setattr("genwright.improve.selecting.devices_here", lambda: ("cpu", 3))
    assert priced(spec(device="auto"))[1] == ""
    monkeypatch.setattr("genwright.improve.selecting.devices_here", lambda: ("cuda", 1))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA H200")
    assert priced(spec(device="auto"))[0].hardware.watts == 700


@dataclass(frozen=True)
class Some:
    """As much of a spec as is priced."""

    hardware: Hardware


def test_the_time_of_an_answer_is_that_of_the_better_way(
    selected: Callable[..., dict[str, Any]], planned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(shop: Any, way: str, rows: Any, *, split: str) -> Any:
        score, seconds = (100.0, 1.0) if way == "zero-shot" else (0.0, 9.0)
        return SimpleNamespace(scores=[score] * len(rows), seconds=seconds * len(rows))

    monkeypatch.setattr("genwright.improve.selecting.judge", judge)
    decoder = selected()["table"][0]
    assert decoder["measured"]["seconds_per_answer"] == 1.0 and decoder["zero-shot"]["value"] == 100.0
