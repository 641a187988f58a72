"""Quantities that know their unit: parse, print, and refuse to mix.

>>> Bytes.parse("24 GiB") - Bytes(2**30)
Bytes(24696061952)
>>> str(Seconds(5400))
'1.5 h'
"""

from __future__ import annotations

import re
from functools import total_ordering
from typing import ClassVar, Self

from genwright.base.errors import BadRequest


@total_ordering
class Quantity:
    """A number with a unit. Adding or comparing two different units is a TypeError."""

    scales: ClassVar[dict[str, float]] = {}
    """Unit name to size in the base unit, smallest first. The first name has size 1."""

    aliases: ClassVar[dict[str, float]] = {}
    """Further unit names that are read but never printed."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def parse(cls, text: str | float) -> Self:
        """Read "24 GiB", "1.5h" or a bare number in the base unit. Errors: BadRequest names the units known."""
        match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(.*?)\s*", str(text), re.IGNORECASE)
        known = {**cls.aliases, **cls.scales}
        base = next(iter(cls.scales))
        if match is None or (match[2] or base) not in known:
            raise BadRequest(
                f"'{text}' is not a {cls.__name__}.", wanted=f"a number and one of {', '.join(known)}", found=repr(text)
            )
        return cls(float(match[1]) * known[match[2] or base])

    def _same(self, other: object) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} does not mix with {type(other).__name__}")
        return other

    def __add__(self, other: object) -> Self:
        return type(self)(self.value + self._same(other).value)

    def __sub__(self, other: object) -> Self:
        return type(self)(self.value - self._same(other).value)

    def __mul__(self, factor: float) -> Self:
        if isinstance(factor, Quantity):  # type: ignore[unreachable]  # for whoever has no type checker
            raise TypeError(f"{type(self).__name__} times {type(factor).__name__} has no unit here")
        return type(self)(self.value * factor)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> float:
        return self.value / self._same(other).value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.value == other.value

    def __lt__(self, other: object) -> bool:
        return self.value < self._same(other).value

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.value:g})" if self.value % 1 else f"{type(self).__name__}({self.value:.0f})"
        )

    def __str__(self) -> str:
        name, size = next(iter(self.scales.items()))
        for candidate, candidate_size in self.scales.items():
            if abs(self.value) >= candidate_size:
                name, size = candidate, candidate_size
        number = self.value / size
        text = f"{number:.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"
        return f"{text} {name}"


class Bytes(Quantity):
    """Printed in binary units; decimal ones (GB = 1e9) are read too."""

    scales: ClassVar[dict[str, float]] = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    aliases: ClassVar[dict[str, float]] = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


class Seconds(Quantity):
    """Wall time."""

    scales: ClassVar[dict[str, float]] = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    aliases: ClassVar[dict[str, float]] = {"ms": 1e-3, "day": 86400, "d": 86400}


class Joules(Quantity):
    """Energy. 1 Wh = 3600 J."""

    scales: ClassVar[dict[str, float]] = {"J": 1, "Wh": 3600, "kWh": 3.6e6, "MWh": 3.6e9}
    aliases: ClassVar[dict[str, float]] = {"kJ": 1e3}


class Money(Quantity):
    """US dollars: the catalogue's prices are published in them."""

    scales: ClassVar[dict[str, float]] = {"USD": 1}


class Tokens(Quantity):
    """A number of tokens."""

    scales: ClassVar[dict[str, float]] = {
        "tokens": 1,
        "K tokens": 1e3,
        "M tokens": 1e6,
        "B tokens": 1e9,
        "T tokens": 1e12,
    }
    aliases: ClassVar[dict[str, float]] = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


class Flops(Quantity):
    """Floating-point operations (a multiply-add is two). 1 petaflop/s-day = 8.64e19 (OpenAI 2018)."""

    scales: ClassVar[dict[str, float]] = {
        "FLOP": 1, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "PF-days": 8.64e19,
    }  # fmt: skip
