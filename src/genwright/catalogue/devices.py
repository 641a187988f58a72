"""Devices: speed, memory, links, power and price, each with its source. A blank is None: not known, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from genwright.catalogue.tables import read_table


@dataclass(frozen=True)
class Device:
    """One device. Rates are dense (no 2:4 sparsity), in 10^12 operations a second; a multiply-add is two."""

    name: str
    """How a project file names it: `hardware.device`."""
    title: str
    """The part's own name."""
    vendor: str
    """Who makes it."""
    kind: str
    """Architecture and generation, e.g. "hopper sm90"."""
    source: str
    """Where rates, memory and power are from."""
    aliases: tuple[str, ...] = ()
    """Other names under which `device()` finds it."""
    notes: str = ""
    """Conflicts between sources, and what a user must know."""
    verified: bool = True
    """False where the row rests on secondary sources, or its own note asks for a check."""
    bf16_tflops: float | None = None
    """Peak bfloat16 matmul."""
    fp16_tflops: float | None = None
    """Peak float16 matmul with float32 accumulation."""
    fp8_tflops: float | None = None
    """Peak 8-bit float matmul."""
    int8_tops: float | None = None
    """Peak 8-bit integer matmul."""
    tf32_tflops: float | None = None
    """Peak float32 matmul on matrix units with 10-bit mantissas."""
    fp32_tflops: float | None = None
    """Peak float32."""
    measured_matmul_bf16_tflops: float | None = None
    """The best bfloat16 matmul that was measured (MAMF), not a data sheet's."""
    memory_gb: float | None = None
    """Device memory in 10^9 bytes, as vendors print it."""
    memory_gb_per_second: float | None = None
    """Memory bandwidth, 10^9 bytes a second."""
    link_gb_per_second: float | None = None
    """To the other devices of the machine, one direction, 10^9 bytes a second."""
    link: str = ""
    """What that link is."""
    network_gb_per_second: float | None = None
    """Typical between machines, for each machine, 10^9 bytes a second."""
    watts: float | None = None
    """Thermal design power of one device."""
    usd_per_hour: float | None = None
    """Price of one device for an hour; stands only with its source."""
    price_source: str = ""
    """Who asks that price, and when."""
    prices: tuple[dict[str, Any], ...] = ()
    """Several vendors' `usd_per_hour`, each with its `source`, where they are known: the spread is wider than any model's error."""
    multiprocessors: int | None = None
    """Streaming multiprocessors or compute units: a product is cut into tiles that they take in waves."""
    cache_mb: float | None = None
    """The largest cache on the device, 10^6 bytes."""
    idle_watts: float | None = None
    """Drawn while nothing runs; None: a share of `watts`."""
    node_devices: int = 1
    """Devices in the usual machine, behind one network."""

    @property
    def price_range(self) -> tuple[float, float] | None:
        """(lowest, highest) USD an hour among the vendors we know; None without a price."""
        known = [float(one["usd_per_hour"]) for one in self.prices]
        known += [self.usd_per_hour] if self.usd_per_hour is not None else []
        return (min(known), max(known)) if known else None


@cache
def devices() -> Mapping[str, Device]:
    """Every device by name, in the catalogue's order."""
    return MappingProxyType(read_table("devices", Device))


def device(name: str) -> Device:
    """The device of a name as people and papers write it: see `catalogue.device_names`. Errors: UnknownName with the nearest."""
    from genwright.catalogue.device_names import place

    return place(name).device
