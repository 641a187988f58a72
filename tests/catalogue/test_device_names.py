"""Names as papers print them, read by hand into parts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genwright.base.errors import UnknownName
from genwright.catalogue.device_names import place
from genwright.catalogue.devices import devices
from genwright.catalogue.regions import region, regions


@pytest.mark.parametrize(
    ("said", "name", "count"),
    [
        ("8xA100 80GB", "a100-80gb", 8), ("A100-40GB-SXM", "a100-40gb", 1), ("4090 24GB", "rtx-4090", 1),
        ("NVIDIA GeForce RTX 3090", "rtx-3090", 1), ("RTX-3090Ti", "rtx-3090-ti", 1), ("A100 PCIe 80GB", "a100-pcie-80gb", 1),
        ("M1 7‑Core GPU 8GB", "m1-7core", 1), ("Titan RTX 24GB", "titan-rtx", 1), ("TPU v5p-128", "tpu-v5p", 64),
        ("v5litepod-256", "tpu-v5e", 256), ("MI250X (1 GCD)", "mi250x-gcd", 1), ("p4d.24xlarge", "a100-40gb", 8),
        ("2 x H100 SXM5 80GB HBM3", "h100", 2), ("Tesla V100-SXM2-32GB", "v100-32gb", 1), ("A100", "a100-80gb", 1),
        ("A100 80GB x 4", "a100-80gb", 4), ("RTX 4060 Ti 16GB", "rtx-4060-ti-16gb", 1), ("GH200 480GB", "gh200-141gb", 1),
    ],
)  # fmt: skip
def test_names_in_print(said: str, name: str, count: int) -> None:
    placed = place(said)
    assert (placed.device.name, placed.count) == (name, count)


def test_a_name_states_network_memory_and_power() -> None:
    """4 x 100 Gb/s = 50 GB/s; Apple sells one part with many memories; 330 of 400 W leaves (267/337)^(1/3) of the clock."""
    assert place("A100-80GB-SXM (4x100Gb RoCE)").device.network_gb_per_second == 50
    assert place("H100-80GB 800Gbps").device.network_gb_per_second == 100
    assert place("M2 Ultra 76-Core GPU 192GB").device.memory_gb == 192
    limited = place("A100-80GB (330W)")
    assert limited.device.watts == 330 and limited.clock == pytest.approx((267 / 337) ** (1 / 3))


def test_the_published_cost_of_a_power_cap() -> None:
    """Splitwise's capped H100 prefills in exactly 1.30 times the time."""
    assert 1 / place("H100-80GB power-capped").clock == pytest.approx(1.30, abs=0.02)


@pytest.mark.parametrize(("said", "nearest"), [("h1000", "h100"), ("RTX 4091", "rtx-4090"), ("rtx-a6001", "rtx-a6000")])
def test_an_unknown_part_is_told_the_nearest(said: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=f"There is no device '{said}'[\\s\\S]*{nearest.split('-')[-1]}"):
        place(said)


def test_every_device_of_the_open_rows_is_known(shared: Path) -> None:
    names = set()
    for kind in ("training", "inference", "runs"):
        with (shared / "planner" / f"{kind}_open.csv").open(encoding="utf-8", newline="") as file:
            names |= {row["device"] for row in csv.DictReader(file)}
    assert all(place(name).device.memory_gb for name in names if name)  # blank: not stated


def test_prices_spread() -> None:
    assert devices()["h100"].price_range == (2.95, 12.29)
    assert devices()["tpu-v4"].price_range is None


def test_regions_are_known_by_name() -> None:
    """BLOOM's own arithmetic: 433,196 kWh at France's intensity are its 24.7 t."""
    assert region("France").kg_per_kwh * 433_196 / 1000 == pytest.approx(24.7, rel=0.01)
    assert all(0 < one.kg_per_kwh < 1 and one.source for one in regions().values())
    with pytest.raises(UnknownName, match="did you mean 'france'"):
        region("frnace")
