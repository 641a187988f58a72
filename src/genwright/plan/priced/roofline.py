"""Seconds of a trace on a machine: each distinct operation's own time, plus what the host spends around each. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from genwright.plan.estimate import Range, around


@dataclass(frozen=True)
class Rates:
    """What was measured on a machine, once per operation and shape, kept in a calibration file."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Signature of an operation to its median seconds, run alone on cold tensors."""
    bytes_per_second: float = 1e10
    """Of a plain copy: prices what was too large to run alone."""
    flops_per_second: float = 1e11
    """Of a square bfloat16 product, likewise."""
    host_seconds: float = 5e-6
    """What Python and autograd spend around one operation."""

    def to_json(self) -> dict[str, Any]:
        """For the calibration file."""
        return vars(self)


def price(events: Iterable[Any], rates: Rates) -> float:
    """Seconds of a list of events (`signature`, `flops`, `traffic`): sum over operations of time + host time.

    An operation that was not measured alone costs max(FLOPs / rate, bytes / bandwidth): Williams 2009.
    """
    counted: Counter[str] = Counter()
    seen: dict[str, Any] = {}
    for event in events:
        counted[event.signature] += 1
        seen[event.signature] = event
    return sum(number * (_alone(seen[signature], rates) + rates.host_seconds) for signature, number in counted.items())


def _alone(event: Any, rates: Rates) -> float:
    measured = rates.seconds.get(event.signature)
    if measured is not None:
        return measured
    return max(event.flops / rates.flops_per_second, event.traffic / rates.bytes_per_second)


DATASHEET_BELOW, DATASHEET_ABOVE = 0.25, 0.35
CALIBRATED_BELOW, CALIBRATED_ABOVE = 0.08, 0.17


def seconds(trace: Any, device: Any, *, setup: Any, calibration: Any = None) -> Range:
    """One optimiser step of a traced setup on a device: from its calibration where there is one, else from its data sheet."""
    from genwright.plan.priced.step_time import step_time

    measured = calibration.speeds() if calibration is not None else None
    spent = step_time(trace, device, setup, speeds=measured).total
    return (
        around(spent, CALIBRATED_BELOW, CALIBRATED_ABOVE)
        if measured
        else around(spent, DATASHEET_BELOW, DATASHEET_ABOVE)
    )


def basis(calibration: Any = None) -> str:
    """ "calibrated" or "datasheet": where a time comes from."""
    return "calibrated" if calibration is not None else "datasheet"
