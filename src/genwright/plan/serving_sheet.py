"""Serving a model for an application as one page: throughput against batch, what fits, latencies, money, energy. No torch here."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import RecipeError
from genwright.catalogue.architectures import architecture
from genwright.catalogue.device_names import place
from genwright.catalogue.profiles import profile
from genwright.plan.architectures import config_of, context_of
from genwright.plan.serving import GIB, ServingSetup, capacity_bytes, estimate_inference, memory_parts, server
from genwright.plan.traffic import Point, Traffic, best, curve, devices_for, of_profile, of_trace


def serving_sheet(
    model: str,
    device: str,
    wanted: dict[str, Any],
    *,
    traffic: str,
    per_second: float = 0.0,
    first_token_ms: float = math.inf,
    token_ms: float = math.inf,
    usd_per_hour: float | None = None,
    fixed: tuple[int, int] = (512, 128),
    batch: int = 0,
    states_precision: bool = False,
) -> dict[str, Any]:
    """`wanted` are fields of a ServingSetup; `traffic` names a profile of the catalogue, a file of requests, or "fixed" lengths.

    `batch` is the rows answered together, 0 the best within the limits; `values` are of that batch.

    Errors: UnknownName, ModelError, DataError, RecipeError, each with the nearest that would work.
    """
    placed, asked = place(device), _traffic(traffic, per_second, fixed)
    count = max(int(wanted.get("count", 1)), placed.count)
    setup = ServingSetup(model=_config(model), **{**wanted, "count": count})
    if states_precision:
        _check_precision(setup, placed)
    if traffic == "fixed":
        _check_context(setup, *fixed)
    typical = _lengths(setup, asked.mean)
    points = curve(setup, placed, asked, usd_per_hour=usd_per_hour)
    if not points:
        raise _does_not_fit(model, setup, placed, asked)
    chosen = best(points, first_token=first_token_ms / 1e3, token=token_ms / 1e3)
    rows = batch or (chosen or points[0]).batch
    found = estimate_inference(_lengths(typical, batch=rows), placed, usd_per_hour=usd_per_hour)
    most = int(found.quantities["max_batch"].value)
    if batch > most:
        raise RecipeError(
            f"{batch} rows together do not fit {count} x {placed.device.title}.", wanted=f"--batch up to {most}",
            found=f"--batch {batch}", do=f"set --batch {most}, or raise --count",
        )  # fmt: skip
    return {
        "model": model, "device": placed.device.name, "count": count, "traffic": {"name": traffic, **asdict(asked)},
        "curve": [_row(point) for point in points], "largest_batch": points[-1].batch, "batch": rows,
        "chosen": _row(chosen) if chosen else None,
        "needed": _needed(chosen, asked, count, usd_per_hour if usd_per_hour is not None else placed.device.usd_per_hour),
        "values": {name: value.value for name, value in found.quantities.items()},
        "low": {name: value.low for name, value in found.quantities.items()},
        "high": {name: value.high for name, value in found.quantities.items()},
        "breakdown": found.breakdown, "basis": "datasheet", "unknown": found.unknown,
        "notes": [*found.notes, *_said(chosen, points, first_token_ms, token_ms)],
        "setup": {**asdict(setup), "model": model},
    }  # fmt: skip


def _check_context(setup: ServingSetup, prompt: int, answer: int) -> None:
    longest = context_of(config_of(setup.model))
    if longest and prompt + answer > longest:
        raise RecipeError(
            f"The model reads at most {longest} tokens, the answer's among them.",
            wanted=f"--input-tokens and --output-tokens of {longest} together", found=f"{prompt} and {answer}",
            do=f"set --input-tokens {max(1, longest - answer)}, or choose a model with a longer context",
        )  # fmt: skip


def _check_precision(setup: ServingSetup, placed: Any) -> None:
    one = server(setup, placed)
    if one.weights.compute == "bf16" and one.compute != "bf16" and setup.precision.startswith("bf16"):
        raise RecipeError(
            f"{placed.device.title} has no bfloat16.", wanted=f"--precision {one.compute} there", found=f"--precision {setup.precision}",
            do=f"set --precision {one.compute}",
        )  # fmt: skip


def _traffic(name: str, per_second: float, fixed: tuple[int, int]) -> Traffic:
    if name == "fixed":
        read, written = fixed
        return Traffic((read,) * 3, (written,) * 3, (float(read), float(written)), per_second)
    if name.endswith(".csv") or Path(name).is_file():
        found = of_trace(Path(name))
        return Traffic(found.inputs, found.outputs, found.mean, per_second or found.per_second)
    return of_profile(profile(name), per_second)


def _config(model: str) -> dict[str, Any]:
    """A file's own config, or the catalogue's."""
    return config_of(model) if Path(model).exists() else dict(architecture(model).config)


def _lengths(setup: ServingSetup, mean: tuple[float, float] | None = None, **changes: Any) -> ServingSetup:
    if mean is not None:
        changes |= {"input_tokens": max(1, round(mean[0])), "output_tokens": max(1, round(mean[1]))}
    return replace(setup, **changes)


def _row(point: Point) -> dict[str, Any]:
    """A point in a page's units."""
    return {
        "batch": point.batch, "first_token_ms": point.first_token_seconds * 1e3, "token_ms": point.token_seconds * 1e3,
        "tokens_per_s": point.tokens_per_second, "requests_per_s": point.requests_per_second,
        "j_per_1k_tokens": None if point.joules_per_token is None else 1e3 * point.joules_per_token,
        "usd_per_1k_tokens": point.usd_per_1k_tokens,
    }  # fmt: skip


def _needed(chosen: Point | None, asked: Traffic, count: int, price: float | None) -> dict[str, Any] | None:
    """Devices that carry the rate, and their price; None where no rate is stated or no batch keeps the limits."""
    if chosen is None or not asked.per_second:
        return None
    number = devices_for(chosen, asked, count)
    return {
        "devices": number,
        "per_second": asked.per_second,
        "usd_per_hour": None if price is None else number * price,
    }


def _does_not_fit(model: str, setup: ServingSetup, placed: Any, asked: Traffic) -> RecipeError:
    """With the count of devices that would hold one row, or the bits that would."""
    one = server(_lengths(setup, (asked.inputs[1], asked.outputs[1])), placed)
    parts = memory_parts(one)
    room = capacity_bytes(placed) - parts["context"]
    whole = sum(size for name, size in parts.items() if name != "context") * setup.count
    enough = 2 ** math.ceil(math.log2(max(1.0, whole / max(room, 1.0))))
    return RecipeError(
        f"{model} does not fit {setup.count} x {placed.device.title} with one request of {asked.inputs[1]} tokens.",
        wanted=f"{whole / GIB:.0f} GiB over all devices", found=f"{setup.count * room / GIB:.0f} GiB",
        do=f"set --count {enough}, or --precision int4",
    )  # fmt: skip


def _said(chosen: Point | None, points: list[Point], first: float, token: float) -> tuple[str, ...]:
    if chosen is not None:
        return ()
    fastest = points[0]
    return (
        f"no batch keeps the limits: alone, a request's first token takes {fastest.first_token_seconds * 1e3:.0f} of "
        f"{first:g} ms and each further one {fastest.token_seconds * 1e3:.1f} of {token:g} ms",
    )
