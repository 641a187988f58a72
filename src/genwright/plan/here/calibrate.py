"""Seconds of each operation on this machine: the operations of a trace, each run alone, once per shape, and remembered.

A plan's first call for a model measures a few hundred operations in some seconds; the next reads the file. The file is
kept per processor, thread count and torch version, and never overwrites a published figure. One product is timed at every
plan, so that what was measured on a busy machine is not believed on an idle one.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from transformers import AutoConfig

from genwright.base.files import sha256_of_json, write_atomic
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.data.collate import collate
from genwright.data.templates import Encoded
from genwright.engine.build import build
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.load import build_model
from genwright.parallel.norm import global_norm
from genwright.plan.here.kernels import Here, kernels_of
from genwright.plan.here.trace import Trace
from genwright.plan.here.tracker import TensorSpec, Tracker
from genwright.plan.priced.roofline import Rates

COLD_BYTES = 64 * 2**20
"""Operands are taken in turn from copies that together outgrow the caches: in a step, nobody's operands are still warm."""
LARGEST_ALONE = 512 * 2**20
"""Operations on more bytes than this are priced by the copy rate instead of being run."""
REPEATS = 5
ANOTHER_HOUR = 2.0
"""A machine that multiplies so many times faster or slower than when it was measured is measured anew: what was remembered is
another load's, or another virtual machine's under the same name."""


def machine() -> dict[str, Any]:
    """What the measurements belong to."""
    return {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def calibrate(
    trackers: Iterable[Tracker | Trace], folder: Path, *, say: Callable[[str], Any] = lambda _: None
) -> Rates:
    """Measure what these traces need and the file lacks; returns all that is known of this machine."""
    path = folder / f"calibration-{sha256_of_json(machine())[:12]}.json"
    rates = _still_true(_known(path), say) or Rates(
        bytes_per_second=_copy_rate(), flops_per_second=_product_rate(), host_seconds=host_seconds()
    )
    missing = {
        event.signature: tracker.arguments[event.signature]
        for tracker in trackers
        for event in tracker.events
        if event.signature not in rates.seconds and event.traffic <= LARGEST_ALONE
    }
    if missing:
        say(f"measuring {len(missing)} operations on this machine, once")
        measured = {signature: _seconds_alone(*call) for signature, call in missing.items()}
        Here.compiled += sum(map(kernels_of(machine(), folder).compiles, missing))
        since = _known(path)  # another process may have added to the file meanwhile
        since = since if since and since.flops_per_second == rates.flops_per_second else rates
        new = {signature: seconds for signature, seconds in measured.items() if seconds is not None}
        rates = replace(rates, seconds={**since.seconds, **rates.seconds, **new})
        write_atomic(path, json.dumps({"machine": machine(), "rates": rates.to_json()}))
    return rates


def _known(path: Path) -> Rates | None:
    """What the file holds; a file that cannot be read is measured anew."""
    try:
        return Rates(**json.loads(path.read_text())["rates"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _still_true(rates: Rates | None, say: Callable[[str], Any]) -> Rates | None:
    """What is remembered, or None where this machine multiplies at another pace now."""
    if rates is None:
        return None
    faster = _product_rate() / rates.flops_per_second
    if 1 / ANOTHER_HOUR <= faster <= ANOTHER_HOUR:
        return rates
    pace = f"{faster:.1f} times faster" if faster > 1 else f"{1 / faster:.1f} times slower"
    say(f"this machine is {pace} than when its operations were measured: they are measured again")
    return None


def _seconds_alone(operation: Any, args: Any, kwargs: Any) -> float | None:
    """Median seconds of one operation, or None where it cannot be run from a description."""
    size = sum(_nbytes(leaf) for leaf in tree_leaves((args, kwargs), is_leaf=_is_spec) if _is_spec(leaf))
    copies = max(1, min(REPEATS + 1, COLD_BYTES // max(size, 1)))
    try:
        calls = [tree_map(_make, (args, kwargs), is_leaf=_is_spec) for _ in range(copies)]
        return _median_seconds(lambda number: operation(*calls[number % copies][0], **calls[number % copies][1]))
    except (RuntimeError, TypeError, IndexError, ValueError):
        return None


@torch.no_grad()
def _median_seconds(call: Callable[[int], Any]) -> float:
    call(0)
    times = []
    for number in range(1, REPEATS + 1):
        began = time.perf_counter()
        result = call(number)
        times.append(time.perf_counter() - began)
        del result
    return sorted(times)[REPEATS // 2]


def _is_spec(value: Any) -> bool:
    return isinstance(value, TensorSpec)


def _nbytes(spec: TensorSpec) -> int:
    return spec.dtype.itemsize * max(1, torch.Size(spec.shape).numel())


def _make(value: Any) -> Any:
    """A tensor for a description: small numbers that neither overflow nor turn denormal; zeros are valid indices."""
    if not _is_spec(value):
        return value
    tensor = torch.empty_strided(value.shape, value.stride, dtype=value.dtype)
    return tensor.fill_(0.5) if value.dtype.is_floating_point else tensor.zero_()


def _copy_rate() -> float:
    source, target = torch.zeros(2**24), torch.zeros(2**24)
    return 2 * source.numel() * 4 / _median_seconds(lambda _: target.copy_(source))


@cache
def _product_rate() -> float:
    """Once a process: all its plans are of one hour."""
    left = torch.full((1024, 1024), 0.5, dtype=torch.bfloat16)
    return 2 * 1024**3 / _median_seconds(lambda _: left @ left)


def host_seconds() -> float:
    """What Python, modules and autograd spend around one operation: a real step of a model too small to compute anything."""
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1
    )  # fmt: skip
    recipe = Recipe(OBJECTIVES["instruction"](), ADAPTERS["lora"](rank=4), "fp32", 1, 4, 1e-3)
    built = build(recipe, lambda dtype, attention: build_model(config, dtype, attention))
    batches = collate([Encoded([1] * 12, [False] + [True] * 11, 0, "")] * 4, packing=True, capacity=64, pad_id=0)

    def step() -> None:
        train_step(built.model, built.optimizer, built.objective, batches, max_norm=1.0, global_norm=global_norm)

    step()
    with Tracker() as tracker:
        step()
    alone = {signature: _seconds_alone(*call) or 0.0 for signature, call in tracker.arguments.items()}
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    spent = sorted(times)[REPEATS // 2] - sum(alone[event.signature] for event in tracker.events)
    return max(0.0, spent / len(tracker.events))


def processor() -> str:
    """The name of this machine's processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor() or os.uname().machine
