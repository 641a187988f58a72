"""A training on a device as one page of numbers: memory, time, money, energy, carbon, how often to save. No torch until it traces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError, RecipeError
from genwright.catalogue.architectures import architecture
from genwright.catalogue.device_names import Placed, place
from genwright.plan.asked import check_asked
from genwright.plan.cadence import DISK_BYTES_PER_SECOND, cadence, in_words
from genwright.plan.estimate import Estimate, Range
from genwright.plan.priced.energy import footprint
from genwright.plan.published.rows import training_answer
from genwright.plan.search import Job, budget_of, choose, search
from genwright.plan.traced.setup import RANKED, Setup
from genwright.plan.training import estimate_training

PETAFLOPS_DAY = 8.64e19
"""FLOP."""
PARTS = (
    "weights", "gradients", "optimizer", "activations", "logits and loss", "temporaries", "all-gather buffers",
    "fragmentation", "workspaces", "communication", "context",
)  # fmt: skip
"""What a breakdown always names: a part that is not there at the peak is 0."""
SEARCHED = ("count", "micro_batch", "accumulate", "strategy", "offload")
"""Fields of a Setup that a search sets itself."""


def sheet(
    model: str,
    device: str,
    wanted: dict[str, Any],
    *,
    steps: int,
    cache: Path | None = None,
    region: str = "world",
    usd_per_hour: float | None = None,
    calibration: Path | None = None,
    kept: Path | None = None,
    rows: int = 0,
) -> dict[str, Any]:
    """Plan `model` on `device`; `wanted` are fields of a Setup, and its strategy may be "auto".

    `calibration` is a file of `genwright calibrate`, or a folder of them, which must hold one of this device; without it the
    folder `kept` may. `rows` of a step over all devices set how many microbatches it takes. Errors: BadRequest naming the
    nearest that would work; DataError for a calibration that is not there.
    """
    placed = place(device)
    config, note = _model(model)
    check_asked(wanted, config, steps=steps, rows=rows)
    setup, said = _setup(config, wanted, placed, rows)
    measured = _calibration(calibration, kept, placed)
    if wanted.get("strategy") == "auto":
        setup = choose(setup, placed, cache=cache, calibration=measured)
        said = (f"strategy auto: {setup.strategy} is the fastest that fits, or the one that needs least",)
    found = estimate_training(setup, placed, cache=cache, calibration=measured)
    notes = (*((note,) if note else ()), *said)
    return _page(model, setup, placed, found, steps, region, usd_per_hour, notes, measured is not None)


def recipes(
    model: str, devices: list[str], wanted: dict[str, Any], *, rows: int, steps: int, most: int, budget: str = "",
    cache: Path | None = None, region: str = "world", usd_per_hour: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`search.search` for a model as people name it. Errors: as `sheet`."""
    config, note = _model(model)
    check_asked(wanted, config, steps=steps, rows=rows)
    fixed = {name: value for name, value in wanted.items() if name not in SEARCHED}
    job = Job(model, config, rows, steps, fixed, region, cache)
    limits = budget_of(budget) if budget else {}
    return {
        **search(job, devices, most=most, budget=limits, usd_per_hour=usd_per_hour),
        "notes": [note] if note else [],
    }


def _model(name: str) -> tuple[Any, str]:
    if Path(name).exists():
        return name, ""
    found = architecture(name)
    return found.config, found.note


def _setup(config: Any, wanted: dict[str, Any], placed: Placed, rows: int) -> tuple[Setup, tuple[str, ...]]:
    """What is asked, with what it leaves open, and what to say of that."""
    count = max(wanted.get("count", 1), placed.count)
    strategy = wanted.get("strategy", "")
    said: tuple[str, ...] = ()
    if strategy in ("", "auto"):
        said = () if count == 1 else ("strategy not stated: zero3, which splits all; --strategy auto compares",)
        strategy = "single" if count == 1 else "zero3"
    values = {**wanted, "count": count, "strategy": strategy}
    if wanted.get("adapter") not in RANKED:
        values["rank"] = 0
    setup = Setup(model=config, **values)
    return (replace(setup, accumulate=_microbatches(setup, rows)) if rows else setup), said


def _microbatches(setup: Setup, rows: int) -> int:
    """Of a step of so many rows. Errors: RecipeError where they do not divide, with the nearest number that does."""
    once = setup.micro_batch * setup.data_degree
    if rows % once:
        raise RecipeError(
            f"{rows} rows do not divide into microbatches of {setup.micro_batch} on {setup.data_degree} devices.",
            wanted=f"a multiple of {once}", found=f"--batch-size {rows}", do=f"set --batch-size {max(1, round(rows / once)) * once}",
        )  # fmt: skip
    return rows // once


def _calibration(asked: Path | None, kept: Path | None, placed: Placed) -> Any:
    """What was asked for, a file or the newest of this device in a folder; else what is kept of it, if anything. Errors: DataError."""
    from genwright.plan.priced.calibration import calibration_of

    if asked is None:
        return calibration_of(placed.device, kept) if kept else None
    found = calibration_of(placed.device, asked if asked.is_dir() else asked.parent)
    if found is None or not (asked.is_dir() or asked.name.endswith(f"-{found.key}.json")):
        raise DataError(
            f"{asked} is no calibration of {placed.device.title}.", wanted="what `genwright calibrate` wrote on such a device",
            found=_instead(asked), do="name the file or the folder that it said, or leave --calibration out",
        )  # fmt: skip
    return found


def _instead(asked: Path) -> str:
    """What is there where a calibration was said to be."""
    if asked.is_dir():
        return f"a folder with {len(list(asked.glob('speeds-*.json')))} of other devices"
    return "another device's, an older one, or another kind of file" if asked.is_file() else "none that can be read"


def _page(
    model: str,
    setup: Setup,
    placed: Placed,
    found: Estimate,
    steps: int,
    region: str,
    usd_per_hour: float | None,
    said: tuple[str, ...],
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
    left_out = tuple(f"left out of the trace: {one}" for one in found.facts.get("left_out", ()))
    notes = (*said, *left_out, *found.notes, *more["notes"])
    return {
        "model": model,
        "device": device.name,
        "count": setup.count,
        "fits": bool(found.facts["fits"]),
        **values,
        "values": values,
        "low": low,
        "high": high,
        "breakdown": dict.fromkeys(PARTS, 0.0) | found.breakdown,
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
    saving = cadence(saved, nodes)
    saving["text"] = in_words(saving)
    return {"ranges": ranges, "unknown": unknown, "notes": notes, "price": price, "checkpoint": saving}
