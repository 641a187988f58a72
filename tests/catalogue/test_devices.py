"""Devices: the table that was researched, row by row; what was added to it is marked as not verified."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genwright.base.errors import UnknownName
from genwright.catalogue.devices import Device, device, devices

NUMBERS = {
    "bf16_tflops": "bf16_tflops", "fp16_tflops": "fp16_tflops", "fp8_tflops": "fp8_tflops", "int8_tops": "int8_tops",
    "tf32_tflops": "tf32_tflops", "fp32_tflops": "fp32_tflops",
    "measured_matmul_bf16_tflops": "measured_matmul_bf16_tflops", "memory_gb": "memory_gb",
    "mem_bw_gbs": "memory_gb_per_second", "intra_node_link_gbs_unidir": "link_gb_per_second",
    "inter_node_typical_gbs_per_node": "network_gb_per_second", "tdp_w": "watts",
    "price_usd_per_device_hour": "usd_per_hour",
}  # fmt: skip
WORDS = {
    "vendor": "vendor", "class": "kind", "intra_node_link_name": "link", "price_source_date": "price_source",
    "source": "source", "notes": "notes",
}  # fmt: skip


@pytest.fixture
def rows(shared: Path) -> list[dict[str, str]]:
    with (shared / "planner" / "devices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_there_with_its_numbers(rows: list[dict[str, str]]) -> None:
    assert [one.title for one in devices().values()][: len(rows)] == [row["device"] for row in rows]
    for one, row in zip(devices().values(), rows, strict=False):
        assert {field: getattr(one, field) for column, field in NUMBERS.items() if row[column]} == {
            field: float(row[column]) for column, field in NUMBERS.items() if row[column]
        }, one.name
        filled = [field for column, field in NUMBERS.items() if not row[column] and getattr(one, field) is not None]
        assert not filled or not one.verified, one.name
        assert {field: getattr(one, field) for column, field in WORDS.items() if row[column]} == {
            field: row[column] for column, field in WORDS.items() if row[column]
        }, one.name


def test_a_price_never_stands_without_its_source() -> None:
    assert not [one.name for one in devices().values() if (one.usd_per_hour is None) != (one.price_source == "")]


@pytest.mark.parametrize("name", ["a30", "l4", "h100-nvl", "h20", "rtx-3090", "rtx-4090", "rtx-5090", "maia-100"])
def test_rows_from_secondary_sources_say_so(name: str) -> None:
    """The list of ../shared/reference/planner.md, section 4."""
    assert not device(name).verified


def test_rates_are_dense() -> None:
    """Data sheets print H100 as 1979 and L4 as 242, with every second weight zero."""
    assert (device("h100").bf16_tflops, device("l4").bf16_tflops) == (989, 121)


@pytest.mark.parametrize("one", devices().values(), ids=devices())
def test_fewer_bits_are_not_slower(one: Device) -> None:
    ladder = [one.fp32_tflops, one.tf32_tflops, one.bf16_tflops, one.fp8_tflops]
    known = [rate for rate in ladder if rate is not None]
    assert known == sorted(known) or one.kind.startswith(("gaudi", "gcn"))


@pytest.mark.parametrize(
    ("said", "name"),
    [("h100", "h100"), ("H100-SXM5-80GB", "h100"), ("A100", "a100-80gb"), ("RTX4090", "rtx-4090"), ("cpu", "cpu-2")],
)
def test_a_device_answers_to_its_aliases(said: str, name: str) -> None:
    assert device(said).name == name


def test_no_two_devices_answer_to_one_name() -> None:
    said = [word.casefold() for one in devices().values() for word in {one.name, one.title.casefold(), *one.aliases}]
    assert len(said) == len(set(said))


def test_names_are_what_people_type() -> None:
    assert not [name for name in devices() if name != name.lower() or " " in name or "_" in name]


def test_an_unknown_device_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"There is no device 'h1000'\.[\s\S]*did you mean 'h100'"):
        device("h1000")
