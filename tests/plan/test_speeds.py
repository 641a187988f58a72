"""A device's speeds: waves counted by hand, bounds, power's share against measured matmuls."""

from __future__ import annotations

import pytest

from genwright.base.errors import RecipeError
from genwright.catalogue.device_names import place
from genwright.catalogue.devices import devices
from genwright.plan.priced.speeds import FILL_SECONDS, Speeds, speeds_of, sustained

TEN = Speeds("ten", {"bf16": 1e13}, 1e12, 1e15, multiprocessors=10, clock=1e9, flash=0.7, kernel=0.0)


def test_a_wave_that_is_half_empty_takes_as_long_as_a_full_one() -> None:
    """Ten multiprocessors, tiles of 256 x 128: 10 tiles are one wave, 11 are two; each tile 2 * 256 * 128 * 512 FLOPs at 1e12."""
    tile = 2 * 256 * 128 * 512 / 1e12 + FILL_SECONDS
    full, over = (TEN._waves(256 * tiles, 128, 512, 1, (256, 128, 1.0), 1, 1e12) for tiles in (10, 11))
    assert full == pytest.approx(tile) and over == pytest.approx(2 * tile)


def test_no_product_is_faster_than_the_rate_or_the_memory() -> None:
    a100 = speeds_of(place("A100 80GB"))
    for m, n, k in ((1, 4096, 4096), (64, 11008, 4096), (4096, 4096, 4096), (8192, 14336, 4096), (8192, 128256, 4096)):
        spent = a100.matmul(m, n, k)
        assert spent >= 2 * m * n * k / a100.rate("bf16")
        assert spent >= 2 * (m * k + k * n + m * n) / a100.bandwidth


def test_large_products_reach_the_measured_rate_and_small_ones_do_not() -> None:
    """MAMF of an A100 is 271 TFLOP/s (catalogue); 8192^3 comes within 12 % of it, 512^3 not to a fifth."""
    a100 = speeds_of(place("A100 80GB"))
    reached = lambda side: 2 * side**3 / a100.matmul(side, side, side) / 271.2e12
    assert 0.88 < reached(8192) <= 1.0 and reached(512) < 0.2
    assert reached(1024) < reached(2048) < reached(8192)


@pytest.mark.parametrize("name", ["a100-80gb", "h100", "a100-pcie-80gb"])
def test_the_powers_curve_finds_measured_matmuls(name: str) -> None:
    """The curve, blind to the measurement of its part, is within a seventh of it."""
    from dataclasses import replace

    one = devices()[name]
    blind = replace(one, measured_matmul_bf16_tflops=None)
    assert one.bf16_tflops and one.measured_matmul_bf16_tflops
    assert sustained(blind, one.bf16_tflops) * one.bf16_tflops == pytest.approx(
        one.measured_matmul_bf16_tflops, rel=0.15
    )


def test_a_capped_device_computes_slower_and_streams_as_fast() -> None:
    free, capped = speeds_of(place("H100-80GB")), speeds_of(place("H100-80GB power-capped"))
    assert (
        free.rate("bf16") / capped.rate("bf16") == pytest.approx(1.31, abs=0.02) and free.bandwidth == capped.bandwidth
    )


def test_units_that_are_not_there_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"no bf16 matrix units[\s\S]*--precision fp16"):
        speeds_of(place("T4")).rate("bf16")


def test_float32_is_not_tf32() -> None:
    assert speeds_of(place("A100")).rate("fp32") == pytest.approx(19.5e12 * 0.92)


@pytest.mark.parametrize("one", devices().values(), ids=devices())
def test_every_device_has_speeds(one: object) -> None:
    from genwright.catalogue.device_names import Placed
    from genwright.catalogue.devices import Device

    assert isinstance(one, Device)
    speeds = speeds_of(Placed(one))
    assert (
        speeds.bandwidth > 0 and (speeds.peak or one.kind == "gaudi") and all(rate > 0 for rate in speeds.peak.values())
    )


def test_a_cpus_rate_is_a_formula() -> None:
    """Two cores at 2.6 GHz, 64 float32 FLOPs a cycle, seven tenths of it."""
    assert speeds_of(place("cpu-2")).rate("fp32") == pytest.approx(2 * 2.6e9 * 64 * 0.7)


def test_eight_bits_take_half_the_energy_of_sixteen() -> None:
    """An L40S states 733 TFLOP/s in fp8 and 362 in bf16: per operand bit the same power, so the same share is kept."""
    speeds = speeds_of(place("L40S"))
    one = devices()["l40s"]
    assert one.fp8_tflops and one.bf16_tflops
    kept = {"fp8": speeds.rate("fp8") / one.fp8_tflops, "bf16": speeds.rate("bf16") / one.bf16_tflops}
    assert kept["fp8"] == pytest.approx(kept["bf16"], rel=0.02)


def test_a_fixed_clock_holds_nothing_back() -> None:
    assert [speeds_of(place(name)).steady for name in ("TPU v5e", "A100", "H100")] == [1.0, 0.86, 0.73]


def test_a_share_of_the_rate_slows_what_arithmetic_bounds_and_not_what_memory_does() -> None:
    large = [TEN.matmul(4096, 4096, 4096, share=share) for share in (1.0, 0.5)]
    assert large[1] == pytest.approx(2 * large[0], rel=0.01)
    slow = Speeds("memory", {"bf16": 1e15}, 1e12, 1e9, 10, 1e9, 0.7, kernel=0.0)
    assert slow.matmul(16, 4096, 4096) == slow.matmul(16, 4096, 4096, share=0.5)


def test_short_rows_leave_attention_waiting_and_an_update_streams() -> None:
    spent = [TEN.attention(1e12, 1e3, queries=queries) for queries in (128, 128_000)]
    assert spent[0] == pytest.approx(2 * spent[1], rel=0.01)
    memory = Speeds("memory", {"bf16": 1e15}, 1e15, 1e9, 10, 1e9, 0.7, kernel=0.0)
    assert memory.update(0.9e9) == pytest.approx(1.0, rel=1e-3)
