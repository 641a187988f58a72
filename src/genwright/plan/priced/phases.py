"""Peaks of what is not the training step: evaluating, generating, saving, resuming, merging; and of shorter rows. No torch here.

All stand on what stays where it is: weights, a reference model, optimizer state, buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from genwright.plan.estimate import Range, around
from genwright.plan.priced.allocator import live_peak
from genwright.plan.traced.record import Allocation, Trace
from genwright.plan.traced.setup import Setup

STANDING = ("weights", "reference model", "optimizer", "communication buffers", "workspaces")
PROCESS_BYTES = 3.0 * 2**30
"""An interpreter with its libraries, and a loader of rows."""
STEP_BAND = (0.04, 0.04)


def phases_of(trace: Trace, setup: Setup) -> dict[str, Range]:
    """Bytes of each phase.

    Evaluating and generating are traced without gradients: a layer's widest moment, the head's. Generating adds the cache of keys
    and values, 2 x layers x key heads x head width a token, for `seq_len` tokens a row; saving holds the largest tensor once more
    where weights are split, resuming the largest tensor read, merging one matrix in float32 beside the weights.
    """
    held = _held(trace)
    kept = float(sum(event.bytes for event in held))
    weights = float(sum(event.bytes for event in held if event.part == "weights"))
    largest = float(max((event.bytes for event in held), default=0))
    _, _, _, peaks = live_peak(trace.allocations)
    meta, rows = trace.meta, setup.micro_batch
    each = 4 if setup.precision == "fp32" else 2
    cache = meta["cache_bytes"] * rows * setup.seq_len / setup.pipeline_degree
    last = rows * meta["vocabulary"] * (each + 4.0)
    gathered = meta["largest_weight"] * 2.0 if setup.strategy in ("zero3", "hybrid") else 0.0
    merged = 4.0 * meta["largest_weight"] if setup.adapter != "full" else 0.0
    return {
        "train_peak_bytes": around(max(peaks.get(name, 0) for name in ("forward", "loss", "backward")), *STEP_BAND),
        "optimizer_peak_bytes": around(peaks.get("optimizer", 0), *STEP_BAND),
        "evaluate_peak_bytes": around(kept + max(meta["layer_peak"], meta["head_peak"]), 0.04, 0.1),
        "generate_peak_bytes": around(kept + cache + meta["layer_peak"] + last, 0.05, 0.15),
        "save_peak_bytes": around(kept + gathered, 0.05, 0.15),
        "resume_peak_bytes": around(kept + largest, 0.05, 0.1),
        "merge_peak_bytes": around(weights + merged, 0.02, 0.1),
        "host_bytes": around(trace.host_bytes + _host(trace, setup), 0.1, 0.3),
    }  # fmt: skip


def _held(trace: Trace) -> list[Allocation]:
    """What is taken while building and by the first optimizer's step, and stands from then on."""
    freed = {event.storage for event in trace.allocations if not event.bytes}
    return [
        event
        for event in trace.allocations
        if event.bytes
        and event.part in STANDING
        and event.phase in ("build", "optimizer")
        and event.storage not in freed
    ]


def _host(trace: Trace, setup: Setup) -> float:
    """A device's process; where weights are split, saving gathers all of them on the first."""
    gathered = trace.parameters * 2.0 if setup.strategy in ("zero3", "hybrid") and setup.adapter == "full" else 0.0
    return PROCESS_BYTES + gathered


def shorter_rows(setup: Setup, active_bytes: Callable[[Setup], float]) -> dict[str, Range]:
    """Active peaks at the median and the 95th percentile of the rows' lengths, where the setup knows them."""
    names = ("active_p50_bytes", "active_p95_bytes")
    return {
        name: around(active_bytes(replace(setup, seq_len=max(1, min(length, setup.seq_len)))), *STEP_BAND)
        for name, length in zip(names, setup.lengths, strict=False)
    }


def chance(high: float, low: float, limit: float) -> float:
    """That it fits: the share of the range below the device's memory, never quite certain of the opposite."""
    if high <= low:
        return float(high <= limit)
    return max(0.05, min(1.0, (limit - low) / (high - low)))


def chance_of_lengths(found: dict[str, Range], rest: Range, limit: float) -> dict[str, Any]:
    """P(fits) of a step whose longest row is the 95th percentile: active there, and what stands beside it."""
    at = found.get("active_p95_bytes")
    return {"fit_probability_p95": chance((at + rest).high, (at + rest).low, limit)} if at else {}
