"""A training on a device as one page of numbers: memory, time, money, energy, carbon, how often to save. No torch until it traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genwright.catalogue.architectures import architecture
from genwright.catalogue.device_names import Placed, place
from genwright.plan.cadence import DISK_BYTES_PER_SECOND, cadence
from genwright.plan.energy import footprint
from genwright.plan.estimate import Estimate, Range
from genwright.plan.rows import training_answer
from genwright.plan.setup import Setup
from genwright.plan.training import estimate_training

PETAFLOPS_DAY = 8.64e19
"""FLOP."""


def sheet(
    model: str,
    device: str,
    wanted: dict[str, Any],
    *,
    steps: int,
    cache: Path | None = None,
    region: str = "world",
    usd_per_hour: float | None = None,
    calibration: Any = None,
) -> dict[str, Any]:
    """Plan `model` on `device`; `wanted` are fields of a Setup. Errors: BadRequest naming the nearest that would work."""
    placed = place(device)
    config, note = _model(model)
    count = max(wanted.get("count", 1), placed.count)
    strategy = wanted.get("strategy") or ("single" if count == 1 else "zero3")
    if wanted.get("adapter") == "full":
        wanted = {**wanted, "rank": 0}
    setup = Setup(model=config, **{**wanted, "count": count, "strategy": strategy})
    found = estimate_training(setup, placed, cache=cache, calibration=calibration)
    return _page(model, setup, placed, found, steps, region, usd_per_hour, note, calibration is not None)


def _model(name: str) -> tuple[Any, str]:
    if Path(name).exists():
        return name, ""
    found = architecture(name)
    return found.config, found.note


def _page(
    model: str,
    setup: Setup,
    placed: Placed,
    found: Estimate,
    steps: int,
    region: str,
    usd_per_hour: float | None,
    note: str,
    calibrated: bool,
) -> dict[str, Any]:
    device = placed.device
    answer = training_answer(found, setup, device)
    values = {
        name: value
        for name, value in answer.items()
        if isinstance(value, float) and not name.endswith(("_low", "_high"))
    }
    low, high = ({name: answer[f"{name}_{bound}"] for name in values} for bound in ("low", "high"))
    more = _of_run(setup, placed, found, steps, region, usd_per_hour)
    for name, spread in more["ranges"].items():
        values[name], low[name], high[name] = spread.value, spread.low, spread.high
    phases = {name: quantity.value for name, quantity in found.quantities.items() if name.endswith("_bytes")}
    notes = ((note,) if note else ()) + tuple(found.notes) + more["notes"]
    return {
        "model": model,
        "device": device.name,
        "count": setup.count,
        "fits": bool(found.facts["fits"]),
        **values,
        "values": values,
        "low": low,
        "high": high,
        "breakdown": found.breakdown,
        "bytes": phases,
        "basis": "calibrated" if calibrated else "datasheet",
        "price": more["price"],
        "checkpoint": more["checkpoint"],
        "facts": {name: value for name, value in found.facts.items() if name != "setup"},
        "setup": {**setup.to_json(), "model": model},
        "unknown": found.unknown | more["unknown"],
        "notes": list(notes),
    }


def _of_run(
    setup: Setup, placed: Placed, found: Estimate, steps: int, region: str, usd_per_hour: float | None
) -> dict[str, Any]:
    """Hours, money, energy, carbon, work and checkpoints of `steps` steps."""
    step, device = found.quantities.get("step_seconds"), placed.device
    ranges: dict[str, Range] = {}
    unknown: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    price: dict[str, Any] = {}
    if step is not None:
        ranges["hours"] = hours = step * (steps / 3600)
        device_hours = hours * setup.count
        ranges["device_hours"] = device_hours
        one = usd_per_hour if usd_per_hour is not None else device.usd_per_hour
        if one is None:
            unknown["usd"] = f"the catalogue has no price of {device.title}: set --usd-per-hour"
        else:
            cheap, dear = (one, one) if usd_per_hour is not None else device.price_range or (one, one)
            ranges["usd"] = Range(device_hours.value * one, device_hours.low * cheap, device_hours.high * dear)
            price = {
                "usd_per_hour": one,
                "source": "stated" if usd_per_hour is not None else device.price_source,
                "lowest": cheap,
                "highest": dear,
            }
        energy = footprint(device, 1.0, where=region)
        if energy is None:
            unknown["kwh"] = f"the power of {device.title} is not known"
        else:
            ranges["kwh"], ranges["kg_co2"] = device_hours * energy.kwh, device_hours * energy.kg
            notes = (f"energy and carbon: {energy.basis}",)
    ranges["petaflops_days"] = Range(*(found.facts["model_flops"] * steps / PETAFLOPS_DAY,) * 3)
    nodes = -(-setup.count // device.node_devices)
    saved = found.quantities["disk_bytes"].value / (nodes * DISK_BYTES_PER_SECOND)
    return {"ranges": ranges, "unknown": unknown, "notes": notes, "price": price, "checkpoint": cadence(saved, nodes)}
