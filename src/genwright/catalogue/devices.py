"""Devices: speed, memory, links, power and price, each with its source. A blank is None: not known, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from genwright.catalogue.tables import pick, read_table


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


@cache
def devices() -> Mapping[str, Device]:
    """Every device by name, in the catalogue's order."""
    return MappingProxyType(read_table("devices", Device))


def device(name: str) -> Device:
    """The device of a name, an alias or the part's own name, in any case. Errors: UnknownName with the nearest name."""
    return pick("device", _names().get(name.casefold(), name), devices())


@cache
def _names() -> dict[str, str]:
    """Alias, title or name in lower case -> name."""
    return {word.casefold(): name for name, one in devices().items() for word in (name, one.title, *one.aliases)}
