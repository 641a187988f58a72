"""Calibrations: kept and found again, interpolated by hand, used by a price; measured here, and the command that does it."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genwright.base.errors import BadRequest
from genwright.catalogue.devices import device
from genwright.plan.priced.calibration import Calibration, calibration_of, interpolated, keep, kept
from genwright.plan.priced.measure import machine_of
from genwright.plan.priced.step_time import op_seconds
from genwright.plan.traced.record import Op
from genwright.plan.traced.setup import Setup

MADE = Calibration(
    {"device": "NVIDIA A100-SXM4-80GB", "driver": "1", "torch": "2"},
    products=(("bf16", 256, 256, 256, 1e-3), ("bf16", 4096, 4096, 4096, 1.0)), streams=((1e3, 1e-5), (1e6, 1e-4), (1e9, 1e-1)),
    attention=(("bf16", 512, 1e9, 1e-3, 2e-3),), launch_seconds=3e-6, waits=False, date="2026-01-01",
)  # fmt: skip


def test_what_was_kept_is_found_by_its_machine_alone(tmp_path: Path) -> None:
    keep(MADE, tmp_path)
    assert kept(MADE.machine, tmp_path) == MADE
    assert kept({**MADE.machine, "driver": "2"}, tmp_path) is None
    assert calibration_of(device("a100"), tmp_path) == MADE
    assert calibration_of(device("h100"), tmp_path) is None


@pytest.mark.parametrize("name", ["device", "driver", "torch"])
def test_one_is_kept_for_each_device_driver_and_torch(name: str, tmp_path: Path) -> None:
    """A machine that was changed in one of them has a file of its own beside the first, and each is found by its own."""
    other = replace(MADE, machine={**MADE.machine, name: "another"}, launch_seconds=9e-6)
    assert keep(MADE, tmp_path) != keep(other, tmp_path) and len(list(tmp_path.iterdir())) == 2
    assert kept(MADE.machine, tmp_path) == MADE and kept(other.machine, tmp_path) == other


def test_this_machine_is_told_by_processor_system_torch_and_threads() -> None:
    found = machine_of("cpu")
    assert set(found) == {"device", "driver", "torch", "threads"} and found["device"]
    assert (found["driver"], found["torch"]) == (platform.release(), torch.__version__)


def test_a_damaged_file_is_no_calibration(tmp_path: Path) -> None:
    keep(MADE, tmp_path).write_text("{")
    assert kept(MADE.machine, tmp_path) is None and calibration_of(device("a100"), tmp_path) is None


def test_a_cpus_threads_are_its_name(tmp_path: Path) -> None:
    keep(Calibration({"device": "some processor", "threads": 2}), tmp_path)
    assert calibration_of(device("cpu-2"), tmp_path) and not calibration_of(device("cpu-4"), tmp_path)


def test_between_points_by_hand() -> None:
    """1e3 -> 1e6 bytes is three decades and one of seconds: 1e4 bytes are a third of the way, 10^(-5 + 1/3)."""
    assert interpolated(MADE.streams, 1e4) == pytest.approx(10 ** (-5 + 1 / 3))
    assert interpolated(MADE.streams, 1.0) == 1e-5 and interpolated(MADE.streams, 1e10) == pytest.approx(1.0)


def test_measured_products_are_priced_as_measured_and_others_between() -> None:
    speeds = MADE.speeds()
    assert speeds.matmul(256, 256, 256) == pytest.approx(1e-3, rel=0.02)
    rate = lambda side: 2 * side**3 / speeds.matmul(side, side, side)
    assert rate(256) < rate(1024) < rate(4096) and speeds.basis == "calibrated"
    one = Op("aten.mm", "matmul", "bf16", 2.0 * 4096**3, 1e8, 1.0, "forward", (4096, 4096, 4096, 1))
    assert op_seconds(one, speeds, Setup(model="x")) == pytest.approx(1.0, rel=0.02)


def test_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few small shapes: times are positive, larger streams take longer, the file is where it is said to be."""
    from genwright.plan.priced import measure

    monkeypatch.setattr(measure, "SHAPES_CPU", [(32, 64, 64), (64, 128, 64)])
    monkeypatch.setattr(measure, "STREAMS_CPU", (2**10, 2**20))
    monkeypatch.setattr(measure, "LENGTHS_CPU", (32, 64))
    monkeypatch.setattr(measure, "REPEATS", 2)
    found = measure.measure("cpu", folder=tmp_path)
    one = found["calibration"]
    assert Path(found["path"]).exists() and kept(one.machine, tmp_path) == one
    assert len(one.products) == 4 and all(row[-1] > 0 for row in one.products)
    assert one.streams[1][1] > one.streams[0][1] > 0 and one.optimizer_rate > 1e8 and one.waits


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    from genwright.plan.priced.measure import measure

    with pytest.raises(BadRequest, match=r"torch sees no device 'tpu' here[\s\S]*genwright calibrate --device cpu"):
        measure("tpu", folder=tmp_path)
