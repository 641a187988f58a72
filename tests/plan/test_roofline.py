"""Prices by hand; checkpoints at Young's interval; a calibration that is kept, merged, and mended."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from genwright.plan.cadence import interval_seconds
from genwright.plan.estimate import Range, around, bill
from genwright.plan.here.calibrate import calibrate
from genwright.plan.here.tracker import Tracker
from genwright.plan.here.verify import measuring
from genwright.plan.priced.roofline import Rates, price


def event(signature: str, flops: int, traffic: int) -> SimpleNamespace:
    return SimpleNamespace(signature=signature, flops=flops, traffic=traffic)


def test_price_by_hand() -> None:
    """Two measured products of 1 s, one unmeasured that is bound by its 4e10 bytes, and 0.1 s of host for each of three."""
    rates = Rates({"mm": 1.0}, bytes_per_second=1e10, flops_per_second=1e12, host_seconds=0.1)
    events = [event("mm", 5, 5), event("mm", 5, 5), event("add", 10**12, 4 * 10**10)]
    assert price(events, rates) == pytest.approx(1 + 1 + 4 + 0.3)
    assert price([event("big", 3 * 10**12, 8)], rates) == pytest.approx(3.1)


def test_youngs_interval_and_its_edge() -> None:
    """sqrt(2 * 2 * 3600) - 2 = 118; where saving takes half the time between failures there is no sense in more."""
    assert interval_seconds(2.0, 3600.0) == pytest.approx(118.0)
    assert interval_seconds(3000.0, 3600.0) == 3600.0
    cost = lambda interval: 2.0 / interval + interval / 2 / 3600
    assert cost(120.0) == min(cost(x) for x in (30, 60, 90, 120, 150, 240, 480))


def test_ranges_add_and_scale() -> None:
    total = around(10.0, 0.1, 0.2) + Range(1.0, 1.0, 1.0)
    assert (total.value, total.low, total.high) == (11.0, 10.0, 13.0)
    known, unknown = bill(total, watts=2.0, usd_per_hour=None)
    assert known["joules"].high == 26.0 and list(unknown) == ["usd"]


def test_a_calibration_is_measured_once_merged_and_mended(tmp_path: Path) -> None:
    def traced(size: int) -> Tracker:
        with Tracker() as tracker:
            torch.zeros(size, 64) @ torch.zeros(64, 32)
        return tracker

    said: list[str] = []
    first = calibrate([traced(8)], tmp_path, say=said.append)
    again = calibrate([traced(8)], tmp_path, say=said.append)
    assert len(said) == 1 and again == first
    assert all(0 < seconds < 0.1 for seconds in first.seconds.values())
    more = calibrate([traced(16)], tmp_path, say=said.append)
    assert set(first.seconds) < set(more.seconds)
    (path,) = tmp_path.glob("calibration-*.json")
    assert json.loads(path.read_text())["machine"]["torch"] == torch.__version__
    path.write_text("{ broken")
    assert set(calibrate([traced(8)], tmp_path, say=said.append).seconds) == set(first.seconds)


@pytest.mark.parametrize(("faster", "told"), [(1.0, 0), (1.9, 0), (4.0, 2), (0.25, 2)])
def test_what_was_measured_at_another_pace_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: float, told: int
) -> None:
    """A plan made on an idle machine from what a busy one took would be eight times too long."""
    with Tracker() as tracker:
        torch.zeros(8, 64) @ torch.zeros(64, 32)
    pace = [1e11]
    monkeypatch.setattr("genwright.plan.here.calibrate._product_rate", lambda: pace[0])
    calibrate([tracker], tmp_path)
    (path,) = tmp_path.glob("calibration-*.json")
    kept = json.loads(path.read_text())
    kept["rates"]["seconds"] = dict.fromkeys(kept["rates"]["seconds"], 9.0) | {"an operation of then": 9.0}
    path.write_text(json.dumps(kept))
    pace[0] *= faster
    said: list[str] = []
    rates = calibrate([tracker], tmp_path, say=said.append)
    assert len(said) == told and (9.0 in rates.seconds.values()) == (told == 0)
    assert told == 0 or "than when its operations were measured" in said[0]
    again = json.loads(path.read_text())["rates"]
    assert ("an operation of then" in again["seconds"]) == (told == 0) and rates == Rates(**again)


def test_larger_products_take_longer(tmp_path: Path) -> None:
    with Tracker() as tracker:
        small, large = torch.zeros(64, 64) @ torch.zeros(64, 64), torch.zeros(1024, 1024) @ torch.zeros(1024, 1024)
    assert small.numel() < large.numel()
    rates = calibrate([tracker], tmp_path)
    times = [rates.seconds[event.signature] for event in tracker.events if "mm" in event.op]
    assert times[1] > 5 * times[0]


def test_a_meter_sees_what_a_block_held() -> None:
    with measuring() as measured:
        held = torch.ones(64 * 2**18)  # 64 MiB
        torch.ones(512, 512) @ torch.ones(512, 512)
    assert held.numel() and measured.peak_bytes - measured.start_bytes > 60 * 2**20
    assert measured.seconds > 0
