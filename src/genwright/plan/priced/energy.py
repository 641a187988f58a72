"""Energy: what a device draws while it does what it does, and the carbon of that where it stands. No torch here.

    P = idle + u (design - idle)        u of the kind of work
    E = P * seconds * PUE               CO2 = E * intensity of the region

u is fitted on Splitwise's A100 (Patel et al. 2024, arXiv 2311.18677): prompts 400 of 400 W, tokens 250 W over eight
devices, 0.74 of 400 W over two, where memory is busy all the time. A device that waits for its host draws less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genwright.catalogue.devices import Device
from genwright.catalogue.regions import Region, region

if TYPE_CHECKING:
    from genwright.plan.priced.step_time import StepTime
    from genwright.plan.serving import Server

COMPUTE_BOUND = 1.0
"""u of products that fill the matrix units: at the design power."""
MEMORY_BOUND = 0.75
"""u of reading memory as fast as it goes."""
WAITING = 0.22
"""u of a device with a program on it that waits for its host or its peers: clocks stay up."""
IDLE_SHARE = 0.15
"""Of the design power, where an idle draw is not in the catalogue."""
PUE = 1.1
"""What a data centre draws for each unit its machines do, where not stated: as LLaMA's and others' tables take it."""


@dataclass(frozen=True)
class Footprint:
    """Of a run."""

    kwh: float
    """Devices' energy times PUE."""
    kg: float
    """CO2 equivalent."""
    basis: str
    """How it was come by."""


def watts(device: Device, u: float) -> float | None:
    """Idle + u (design - idle); None where the catalogue has no design power.

    >>> from genwright.catalogue.devices import devices
    >>> watts(devices()["a100-80gb"], 1.0)
    400.0
    """
    if device.watts is None:
        return None
    idle = idle_watts(device)
    return float(idle + u * (device.watts - idle))


def idle_watts(device: Device) -> float:
    """Drawn while nothing runs."""
    return device.idle_watts if device.idle_watts is not None else IDLE_SHARE * (device.watts or 0.0)


def utilisation(compute: float, memory: float, total: float) -> float:
    """The u of a step: seconds bound by arithmetic and by memory within `total` seconds; the rest waits."""
    if total <= 0:
        return 0.0
    compute, memory = min(compute, total), min(memory, max(0.0, total - compute))
    return (COMPUTE_BOUND * compute + MEMORY_BOUND * memory + WAITING * (total - compute - memory)) / total


def footprint(
    device: Device, device_hours: float, *, where: str | Region = "world", u: float = 1.0, pue: float = PUE
) -> Footprint | None:
    """Energy and carbon of so many device-hours; None where the device's power is not known.

    >>> from genwright.catalogue.devices import devices
    >>> round(footprint(devices()["a100-80gb"], 82432, where="us").kwh)  # LLaMA-7B, table 15: 36 MWh
    36270
    """
    power = watts(device, u)
    if power is None:
        return None
    one = where if isinstance(where, Region) else region(where)
    kwh = power * device_hours / 1000 * pue
    return Footprint(
        kwh,
        kwh * one.kg_per_kwh,
        f"computed from the data sheet ({device.watts:g} W), not metered; {one.title}, {one.source}",
    )


def step_watts(device: Device, step: StepTime) -> float | None:
    """Mean draw of one device over a training step; None where its power is not known."""
    return watts(device, utilisation(step.compute_bound, step.memory_bound, step.total))


def serving_joules(one: Server, prefill: float, token: float) -> float | None:
    """Joules of all devices for each token that is written, the prompt's share included."""
    power = (phase_watts(one, "prefill", prefill), phase_watts(one, "decode", token))
    if power[0] is None or power[1] is None:
        return None
    steps = one.setup.output_tokens
    return one.setup.count * (power[0] * prefill + power[1] * token * steps) / (steps * one.setup.batch)


def phase_watts(one: Server, phase: str, seconds: float) -> float | None:
    """Mean draw of one device in a phase, from what its operations are bound by."""
    from genwright.plan.serving import operations
    from genwright.plan.serving_ops import op_seconds

    setup = one.setup
    tokens = setup.input_tokens if phase == "prefill" else 1
    context = setup.input_tokens + (0 if phase == "prefill" else setup.output_tokens // 2)
    compute = memory = 0.0
    for op in operations(one, tokens, context):
        spent = op_seconds(one, op) * op.count
        streamed = min(spent, one.speeds.stream(op.bytes) * op.count)
        bound = op.flops / one.speeds.rate(op.dtype) > op.bytes / one.speeds.bandwidth
        compute, memory = (compute + spent, memory) if bound else (compute, memory + streamed)
    working = setup.count if one.parallel == "layers" else 1
    return watts(one.placed.device, utilisation(compute / working, memory / working, seconds))
