"""Regions: how much carbon a kilowatt-hour costs where the machine stands, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from genwright.catalogue.tables import pick, read_table


@dataclass(frozen=True)
class Region:
    """One grid, a year's average."""

    name: str
    """How a command names it: `--region`."""
    title: str
    """Where it is."""
    kg_per_kwh: float
    """CO2 equivalent, location-based."""
    source: str
    """Who says so."""
    year: int
    """Of the figure."""
    verified: bool = True
    """False: recalled from the source, not read again."""


@cache
def regions() -> Mapping[str, Region]:
    """Every region by name."""
    return MappingProxyType(read_table("regions", Region))


def region(name: str) -> Region:
    """The region of a name. Errors: UnknownName with the nearest one."""
    return pick("region", name.casefold(), regions())
