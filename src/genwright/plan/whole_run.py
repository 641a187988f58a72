"""A whole training from its model, its tokens and its device: hours, energy, carbon, money, petaflop/s-days. No torch here.

    FLOPs = (6 N + 12 L h s / 2) D          Kaplan 2020, arXiv 2001.08361; PaLM App. B, arXiv 2204.02311; causal attention is half
    hours = FLOPs / (share * matmul rate) / 3600

The matmul rate is what the device keeps up (`speeds`). `share` is what is left of it after everything else: attention at its
own rate, norms, the optimizer, messages, and, above 100 billion weights, a forward taken twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from genwright.catalogue.device_names import Placed, place
from genwright.plan.estimate import Range, around
from genwright.plan.priced.energy import PUE, footprint
from genwright.plan.priced.speeds import speeds_of

SHARE = 0.57
"""Of the matmul rate, over a whole run on many devices: restarts, evaluation and saving in it."""
RECOMPUTED_FROM = 100e9
"""Weights above which every published run of its day recomputed its activations: 8 N instead of 6 N is done."""
BELOW, ABOVE = 0.25, 0.35
PFS_DAY = 8.64e19


@dataclass(frozen=True)
class WholeRun:
    """What a run takes. Computed from data sheets."""

    flops: float
    device_hours: Range
    petaflops_days: float
    kwh: Range | None
    """With the data centre's share; None where the device's power is not known."""
    co2_kg: Range | None
    usd: Range | None
    """At the lowest to the highest price known; None without one."""
    basis: str = "computed from data sheets, not metered"


def flops_of(parameters: float, tokens: float, *, layers: int = 0, width: int = 0, seq_len: int = 0) -> float:
    """(6 N + 6 L h s) D.

    >>> flops_of(1e9, 1e9)
    6e+18
    """
    return (6.0 * parameters + 6.0 * layers * width * seq_len) * tokens


def whole_run(
    parameters: float, tokens: float, device: str | Placed, *, layers: int = 0, width: int = 0, seq_len: int = 0, where: str = "world",
    pue: float = PUE, precision: str = "bf16",
) -> WholeRun:  # fmt: skip
    """`parameters` are those a token passes through."""
    placed = place(device) if isinstance(device, str) else device
    speeds = speeds_of(placed)
    flops = flops_of(parameters, tokens, layers=layers, width=width, seq_len=seq_len)
    done = flops * (4 / 3 if parameters >= RECOMPUTED_FROM else 1.0)
    rate = speeds.rate(precision if precision in speeds.peak else "fp16")
    hours = around(done / (SHARE * rate) / 3600, BELOW, ABOVE)
    spent = footprint(placed.device, 1.0, where=where, pue=pue)
    prices = placed.device.price_range
    return WholeRun(
        flops, hours, flops / PFS_DAY, hours * spent.kwh if spent else None, hours * spent.kg if spent else None,
        Range(hours.value * (prices[0] + prices[1]) / 2, hours.low * prices[0], hours.high * prices[1]) if prices else None,
    )  # fmt: skip
