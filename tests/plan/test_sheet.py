"""A page of numbers: hours, money, energy and work worked out again from the step, the device and the price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import DataError, RecipeError
from genwright.catalogue.devices import devices
from genwright.plan import search as searching
from genwright.plan import sheet as page
from genwright.plan.asked import check_asked, check_context
from genwright.plan.estimate import Estimate, Range
from genwright.plan.traced.setup import Setup

GIB = 2**30


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Setup, Any]]:
    """Every step takes two seconds, from one to four, and 6e15 FLOPs over all devices; a save writes 24e9 bytes."""
    seen: list[tuple[Setup, Any]] = []

    def estimate(setup: Setup, placed: Any, *, calibration: Any = None, **_: Any) -> Estimate:
        seen.append((setup, calibration))
        sizes = dict.fromkeys(
            ("active_peak_bytes", "reserved_peak_bytes", "device_peak_bytes"), Range(3 * GIB, 2 * GIB, 4 * GIB)
        )
        facts = {
            "fits": True,
            "tokens_per_step": 4096 * setup.count,
            "model_flops": 5e15,
            "attention_flops": 1e15,
            "limit_bytes": 80 * GIB,
        }
        return Estimate(
            {**sizes, "step_seconds": Range(2.0, 1.0, 4.0), "disk_bytes": Range(24e9, 24e9, 24e9)},
            {"weights": GIB},
            facts=facts,
        )

    monkeypatch.setattr(page, "estimate_training", estimate)
    monkeypatch.setattr(searching, "estimate_training", estimate)
    return seen


def _sheet(**more: Any) -> dict[str, Any]:
    wanted = {"adapter": "full", "rank": 16, "seq_len": 128, **more.pop("wanted", {})}
    return page.sheet("llama-2-7b", more.pop("device", "h100"), wanted, **{"steps": 1800, **more})


def test_hours_money_energy_and_work_follow_from_the_step(asked: Any) -> None:
    found, one = _sheet(wanted={"count": 16}), devices()["h100"]
    assert (found["hours"], found["device_hours"]) == (1.0, 16.0)
    assert (found["low"]["hours"], found["high"]["hours"]) == (0.5, 2.0)
    assert found["usd"] == pytest.approx(16 * one.usd_per_hour) and found["high"]["usd"] == pytest.approx(
        32 * one.price_range[1]
    )
    assert found["petaflops_days"] == pytest.approx(5e15 * 1800 / 8.64e19)
    assert found["tokens_per_s_per_device"] == pytest.approx(2048) and found["mfu_pct"] == pytest.approx(
        100 * 6e15 / (2 * 16 * one.bf16_tflops * 1e12)
    )
    assert found["kg_co2"] / found["kwh"] == pytest.approx(0.48, abs=0.03) and found["low"][
        "tokens_per_s_per_device"
    ] == pytest.approx(1024)
    assert found["checkpoint"]["save_seconds"] == pytest.approx(24.0 / 2)  # two machines of eight write at once
    assert found["price"]["source"] and found["basis"] == "datasheet"


def test_a_stated_price_has_no_spread(asked: Any) -> None:
    found = _sheet(usd_per_hour=3.0)
    assert (found["usd"], found["price"]["source"]) == (3.0, "stated") and found["high"]["usd"] == 2 * found["usd"]


def test_what_is_not_known_says_why(asked: Any) -> None:
    found = _sheet(device="rtx-4090")
    assert "usd" not in found["values"] and "--usd-per-hour" in found["unknown"]["usd"]


def test_a_name_may_count_the_devices_and_full_has_no_rank(asked: list[tuple[Setup, Any]]) -> None:
    assert _sheet(device="8xH100")["count"] == 8
    assert (asked[-1][0].strategy, asked[-1][0].rank) == ("zero3", 0)
    _sheet(wanted={"adapter": "lora"})
    assert (asked[-1][0].strategy, asked[-1][0].rank) == ("single", 16)


def test_what_is_not_stated_is_said(asked: Any) -> None:
    assert any("strategy not stated" in note for note in _sheet(wanted={"count": 4})["notes"])
    assert not any("strategy" in note for note in _sheet(wanted={"count": 4, "strategy": "ddp"})["notes"])


@pytest.mark.parametrize(("rows", "nearest"), [(10, 8), (13, 16), (3, 8)])
def test_rows_that_do_not_divide_have_the_nearest_that_do(asked: Any, rows: int, nearest: int) -> None:
    with pytest.raises(RecipeError, match=f"set --batch-size {nearest}$"):
        _sheet(wanted={"count": 4, "micro_batch": 2}, rows=rows)
    assert _sheet(wanted={"count": 4, "micro_batch": 2}, rows=24)["setup"]["accumulate"] == 3


def test_a_calibration_of_this_device_is_used_and_another_s_refused(
    asked: list[tuple[Setup, Any]], tmp_path: Path
) -> None:
    from genwright.plan.priced.calibration import Calibration, keep

    mine = keep(
        Calibration({"device": "NVIDIA H100 80GB HBM3", "torch": "2"}, products=(("bf16", 8, 8, 8, 1e-6),)), tmp_path
    )
    for where in (mine, tmp_path):
        assert _sheet(calibration=where)["basis"] == "calibrated" and asked[-1][1].machine["torch"] == "2"
    assert _sheet(kept=tmp_path)["basis"] == "calibrated"
    assert _sheet(kept=tmp_path, device="a100-80gb")["basis"] == "datasheet"
    other = tmp_path / "speeds-other.json"
    other.write_text(json.dumps({"machine": {}}))
    for where, device in ((mine, "a100-80gb"), (other, "h100"), (tmp_path / "none.json", "h100")):
        with pytest.raises(DataError, match="is no calibration of"):
            _sheet(calibration=where, device=device)


def test_a_folder_that_was_named_must_hold_a_calibration_of_the_device(
    asked: list[tuple[Setup, Any]], tmp_path: Path
) -> None:
    """A person who names a folder means to be answered from it, never from a data sheet in its stead."""
    from genwright.plan.priced.calibration import Calibration, keep

    with pytest.raises(DataError, match=r"is no calibration of H100[\s\S]*a folder with 0 of other devices"):
        _sheet(calibration=tmp_path)
    keep(Calibration({"device": "NVIDIA H100 80GB HBM3"}), tmp_path)
    with pytest.raises(DataError, match="a folder with 1 of other devices"):
        _sheet(calibration=tmp_path, device="a100-80gb")
    assert _sheet(calibration=tmp_path)["basis"] == "calibrated"


def test_recipes_take_the_budget_s_words_and_search_what_they_set(asked: list[tuple[Setup, Any]]) -> None:
    wanted = {
        "adapter": "full",
        "rank": 16,
        "seq_len": 128,
        "strategy": "hybrid",
        "count": 3,
        "micro_batch": 7,
        "accumulate": 5,
    }
    found = page.recipes("llama-2-7b", ["h100"], wanted, rows=4, steps=1800, most=2, budget="1.5h")
    assert {one["strategy"] for one in found["fitting"]} == {"single", "ddp", "zero2", "zero3"}
    assert all(one["within_budget"] and one["hours"] == 1.0 for one in found["fitting"])


def test_numbers_and_rows_are_checked_for_those_who_call_it() -> None:
    with pytest.raises(RecipeError, match=r"--rank is a whole number[\s\S]*set --rank 0"):
        check_asked({"rank": -1}, "llama-3.1-8b")
    with pytest.raises(RecipeError, match="reads at most 131072 tokens"):
        check_context(200_000, "llama-3.1-8b")
