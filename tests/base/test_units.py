"""Quantities: parsing and printing agree, and two units never mix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import BadRequest
from genwright.base.units import Bytes, Flops, Joules, Money, Quantity, Seconds, Tokens

UNITS = [Bytes, Flops, Joules, Money, Seconds, Tokens]
units = st.sampled_from(UNITS)
numbers = st.floats(min_value=-1e21, max_value=1e21, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("24 GiB", Bytes(24 * 2**30)),
        ("24GB", Bytes(24e9)),
        ("1.5h", Seconds(5400)),
        ("90", Seconds(90)),
        ("250 ms", Seconds(0.25)),
        ("1 kWh", Joules(3_600_000)),
        ("2e3 Wh", Joules(7_200_000)),
        ("5 USD", Money(5)),
        ("1 PF-days", Flops(8.64e19)),
        ("3 B", Tokens(3e9)),
    ],
)
def test_reading(text: str, quantity: Quantity) -> None:
    assert type(quantity).parse(text) == quantity


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Bytes(0), "0 B"),
        (Bytes(1536), "1.5 KiB"),
        (Bytes(-(2**30)), "-1 GiB"),
        (Seconds(5400), "1.5 h"),
        (Seconds(59.9), "59.9 s"),
        (Joules(3_600_000), "1 kWh"),
        (Flops(3.4e13), "34 TFLOP"),
    ],
)
def test_printing(quantity: Quantity, text: str) -> None:
    assert str(quantity) == text


@pytest.mark.parametrize("text", ["", "GiB", "1 parsec", "1.2.3 GiB", "one GiB", "1 GiB more"])
def test_what_is_no_quantity_is_named_with_the_units_there_are(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a Bytes") as caught:
        Bytes.parse(text)
    assert "GiB" in caught.value.wanted


@given(units, numbers)
def test_what_is_printed_reads_back_to_three_digits(unit: type[Quantity], number: float) -> None:
    printed = str(unit(number))
    assert unit.parse(printed).value == pytest.approx(number, rel=0.006, abs=0.006)


@given(units, units, numbers, numbers)
def test_different_units_refuse_to_mix(first: type[Quantity], second: type[Quantity], a: float, b: float) -> None:
    left, right = first(a), second(b)
    if first is second:
        assert (left + right).value == a + b
        assert (left < right) == (a < b)
        return
    for mix in (lambda: left + right, lambda: left - right, lambda: left < right, lambda: left / right):
        with pytest.raises(TypeError, match="does not mix with"):
            mix()
    assert left != right


def test_products_of_two_quantities_have_no_unit_here() -> None:
    with pytest.raises(TypeError, match="has no unit here"):
        Bytes(2) * Seconds(3)  # type: ignore[operator]
    assert 2 * Bytes(3) == Bytes(6) == Bytes(3) * 2
    assert Bytes(6) / Bytes(3) == 2


def test_equal_quantities_are_one_key() -> None:
    assert len({Bytes(1), Bytes(1.0), Seconds(1)}) == 2
    assert repr(Bytes(2**31)) == "Bytes(2147483648)"
