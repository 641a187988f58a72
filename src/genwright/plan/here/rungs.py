"""The plan of one rung of the ladder on this machine: the five peaks that kill runs, the disk, the time and the bill.

Memory of the process = what it holds before a model is loaded (measured now) + code that is compiled for each shape + live bytes
from the trace, with a range for what the allocator keeps besides. Time = the traced operations, each at its own measured speed
on this machine, and the compiling.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from genwright.data.layouts import Feed
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.models.families import Head
from genwright.parallel.mesh import SINGLE, Placement, fake_ranks
from genwright.plan.cadence import DEFAULT_MTBF_SECONDS, DISK_BYTES_PER_SECOND, cadence, in_words
from genwright.plan.estimate import Estimate, Range, around, bill
from genwright.plan.here.calibrate import calibrate
from genwright.plan.here.calibrate import machine as this_machine
from genwright.plan.here.kernels import KEPT, Kernels, kernels_of, process_bytes
from genwright.plan.here.layers import by_layers, layers_are_alike, shapes_of, told_by_few
from genwright.plan.here.repeated import by_few
from genwright.plan.here.shapes import (
    Compiled,
    Layout,
    layouts_of_step,
    of_answers,
    of_training,
    padded_prompt,
    together,
    total,
)
from genwright.plan.here.steps import Steps
from genwright.plan.here.trace import (
    Trace,
    over_the_full_base,
    trace_generation,
    trace_merge,
    trace_reading,
)
from genwright.plan.priced.roofline import price
from genwright.precision.policy import resolve

GENERATION_ROWS = 16
"""Rows of one batch of generation, as `models.generate` takes them."""
MEMORY_BELOW, MEMORY_ABOVE = 0.10, 0.15
"""The allocator's slack, and threads' scratch: how far the process may be from baseline + live bytes."""
SLACK = 32 * 2**20
"""What a process holds more or less than the plan's own after the same imports."""
HOLES = 0.35
"""Of what comes and goes in a step, what the heap holds besides: rows of other lengths leave holes that the next ones do not
fill. 0.2, 0.3 and 0.9 were seen on three of this project's examples."""
AFTER_TRAINING = ("evaluate_peak_bytes", "merge_peak_bytes")
STANDING = ("weights", "gradients", "optimizer")
FILE_HEADERS = 0.02
"""Names and shapes in safetensors files, beside the tensors."""
TIME_BELOW, TIME_ABOVE = 0.20, 0.35
"""A shared machine changes its speed by so much between the measurement and the run."""


@dataclass(frozen=True)
class Reading:
    """Rows that are read to judge a rung that writes nothing."""

    feed: Feed
    objective: Any
    head: Head
    batches: Sequence[Sequence[int]] = ()
    """Numbers of the rows that are read at once; none: each row alone."""


@dataclass(frozen=True)
class Asking:
    """The generation that judges a rung: prompts and expected answers, in tokens; or the reading that does."""

    prompts: Sequence[int]
    answers: Sequence[int]
    max_new_tokens: int
    reading: Reading | None = None


@dataclass(frozen=True)
class Machine:
    """Where it will run, and what the project says of it."""

    calibrations: Path
    watts: float | None = None
    usd_per_hour: float | None = None
    mtbf_seconds: float = DEFAULT_MTBF_SECONDS
    """Between interruptions."""

    def kernels(self) -> Kernels:
        """What its libraries keep."""
        return kernels_of(this_machine(), self.calibrations)


@dataclass(frozen=True)
class Answers:
    """What judging a rung takes."""

    seconds: Range
    peak: int
    """Live bytes at the longest prompt and the longest answer."""
    compiled: Compiled


Say = Callable[[str], Any]


def plan_prompting(
    config: Any, asking: Asking, machine: Machine, *, precision: str, weights_bytes: int, say: Say = lambda _: None,
    writes_to_the_limit: bool = True,
) -> Estimate:  # fmt: skip
    """A rung that trains nothing: it is judged, and that is all. Untrained models write to the limit, so that is expected."""
    dtype = resolve(precision).compute
    alike = layers_are_alike(shapes_of(config, dtype))
    judged = _generation(config, dtype, asking, machine, writes_to_the_limit=writes_to_the_limit, alike=alike, say=say)
    live, kernels = max(judged.peak, loading_bytes(config, dtype, weights_bytes)), machine.kernels()
    memory = _process(process_bytes(kernels), live, kernels, total(judged.compiled))
    seconds = judged.seconds
    quantities = {"evaluate_peak_bytes": memory, "host_bytes": memory, "evaluate_seconds": seconds, "seconds": seconds}
    return replace(_with_bill(quantities, {}, machine, ()), compiled={"evaluate": judged.compiled})


def plan_training(
    recipe: Recipe, config: Any, feed: Feed, asking: Asking, machine: Machine, *, weights_bytes: int,
    say: Say = lambda _: None, place: Placement = SINGLE,
) -> Estimate:  # fmt: skip
    """A rung that trains `recipe` on these rows, saves it, could resume it, merges it, and is judged like the others.

    Laid over several ranks, the first rank's step is traced; on a CPU all of them share this machine's memory and cores.
    """
    layouts = [layouts_of_step(recipe, feed, step) for step in range(recipe.steps)]
    longest, typical = steps_of(layouts)
    alike = place.ranks == 1 and told_by_few(recipe, config)
    widest, usual, sizes = _traced(recipe, config, feed, (longest, typical), place, alike)
    kernels = machine.kernels()
    baseline = process_bytes(kernels)  # with every library and module that the run will load
    dtype = resolve(recipe.precision).compute
    judged = _generation(
        config, dtype, asking, machine, writes_to_the_limit=False, alike=alike, wrap=_wrap_for_answering(recipe), say=say
    )  # fmt: skip
    usual_seconds = price(usual.events, calibrate([usual], machine.calibrations, say=say))
    step_seconds = around(usual_seconds, TIME_BELOW, TIME_ABOVE)
    compiled = of_training(layouts, longest, kernels.shapes(widest.events))
    trained = step_seconds * recipe.steps + _compiling(kernels, total(compiled))
    holes = HOLES * sum(size for part, size in widest.peak.parts.items() if part not in STANDING)
    snapshot = sizes["trained"] + sizes["state"]  # the copy that is written while training goes on, kept for the next
    peaks = {
        "train_peak_bytes": max(widest.peak.total + holes + snapshot, weights_bytes + sizes["weights"]),
        "merge_peak_bytes": _merging(recipe, config, alike) + weights_bytes,
        "evaluate_peak_bytes": max(judged.peak, loading_bytes(config, dtype, weights_bytes)),
        **_checkpoint_peaks(sizes, snapshot),
    }
    processes = {"train_peak_bytes": place.ranks, "save_peak_bytes": place.ranks, "resume_peak_bytes": place.ranks}
    left = {"train": compiled, "evaluate": judged.compiled}
    memory = {
        name: _process(baseline, value, kernels, total(held_at(name, left))) * processes.get(name, 1)
        for name, value in peaks.items()
    }
    quantities = {
        **memory,
        "host_bytes": max(memory.values(), key=lambda peak: peak.value),
        "disk_bytes": _disk(sizes),
        "flops_per_step": around(usual.flops, 0.0, 0.0),
        "step_seconds": step_seconds,
        "train_seconds": trained,
        "evaluate_seconds": judged.seconds,
        "seconds": trained + judged.seconds,
    }
    parts = {part: float(size) for part, size in widest.peak.parts.items() if size}
    library = {"process": baseline, "compiled kernels": kernels.held(total(compiled)), "holes in the heap": holes}
    notes = (
        f"the longest of {recipe.steps} steps is step {longest + 1}; the typical one, step {typical + 1}, sets the time",
        f"{sizes['trained']:,} bytes of weights are trained",
    )
    saving = cadence(snapshot / DISK_BYTES_PER_SECOND, 1, machine.mtbf_seconds)
    planned = _with_bill(quantities, library | parts, machine, (*notes, in_words(saving)))
    return replace(planned, facts={"checkpoint": saving}, compiled=left)


def _checkpoint_peaks(sizes: Mapping[str, int], snapshot: int) -> dict[str, float]:
    """Gradients stand until the next step while a checkpoint is copied; a run that resumes holds the largest tensor twice."""
    standing = sizes["state"] + sizes["weights"]
    return {
        "save_peak_bytes": standing + sizes["trained"] + snapshot,
        "resume_peak_bytes": standing + sizes["largest"],
    }


def held_at(peak: str, compiled: Mapping[str, Compiled], before: Compiled = MappingProxyType({})) -> Compiled:
    """What the process holds at a peak: what was there `before`, training's kernels, and once it is judged those of answering."""
    names = compiled if peak in AFTER_TRAINING else set(compiled) - {"evaluate"}
    return together(before, *(compiled[name] for name in names))


def in_order(planned: Mapping[str, Estimate], kernels: Kernels) -> dict[str, Estimate]:
    """Plans of rungs that one process climbs one after another: it holds at each peak what the rungs before it compiled."""
    found, before = {}, dict[str, float]()
    for name, estimate in planned.items():
        found[name] = _holding(estimate, before, kernels)
        before = dict(together(before, *estimate.compiled.values()))
    return found


def _holding(estimate: Estimate, before: Compiled, kernels: Kernels) -> Estimate:
    """With the kernels of earlier rungs in each peak; bounds stand, for they are of none and of all that are kept."""
    own, quantities = estimate.compiled, dict(estimate.quantities)
    more = {
        name: kernels.held(total(held_at(name, own, before))) - kernels.held(total(held_at(name, own)))
        for name in quantities if name.endswith("_peak_bytes")
    }  # fmt: skip
    for name, size in more.items():
        peak = quantities[name]
        quantities[name] = replace(peak, value=min(peak.value + size, peak.high))
    quantities["host_bytes"] = max((quantities[name] for name in more), key=lambda peak: peak.value)
    earlier = {"kernels of earlier rungs": more["train_peak_bytes"]} if more.get("train_peak_bytes") else {}
    return replace(estimate, quantities=quantities, breakdown={**estimate.breakdown, **earlier})


def _traced(
    recipe: Recipe, config: Any, feed: Feed, numbers: tuple[int, int], place: Placement, alike: bool
) -> tuple[Trace, Trace, dict[str, int]]:
    """Two steps, and what the built recipe holds."""

    def traced(one: Any, more: Sequence[int]) -> tuple[Trace, Trace, dict[str, int]]:
        steps = Steps(recipe, one, more, place)
        first, second = (steps.trace(partial(_batches, recipe, feed, step, place.ranks)) for step in numbers)
        return first, second, steps.sizes()

    with fake_ranks(place.ranks) if place.ranks > 1 else nullcontext():
        return by_few(config, alike, traced)


def _merging(recipe: Recipe, config: Any, alike: bool) -> int:
    (peak,) = by_layers(config, lambda one: (trace_merge(recipe, one),), alike=alike)
    return round(peak)


def loading_bytes(config: Any, dtype: torch.dtype, weights_bytes: int) -> int:
    """While a model is read, its file's pages and its weights in the type asked for are in memory together."""
    parameters = shapes_of(config, dtype).parameters()
    return weights_bytes + sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def steps_to_trace(recipe: Recipe, feed: Feed) -> tuple[int, int]:
    """(the step with the largest microbatch, the step of median size), by their tokens; nothing is collated for it."""
    return steps_of([layouts_of_step(recipe, feed, step) for step in range(recipe.steps)])


def steps_of(layouts: Sequence[Sequence[Layout]]) -> tuple[int, int]:
    """The same of the layouts of all steps."""
    largest = [max(one.tokens for one in step) for step in layouts]
    totals = [sum(one.tokens for one in step) for step in layouts]
    return max(range(len(layouts)), key=largest.__getitem__), totals.index(statistics.median_low(totals))


def _batches(recipe: Recipe, feed: Feed, step: int, ranks: int = 1) -> Any:
    return microbatches_of_step(recipe, feed, step, ranks)[1]


def _wrap_for_answering(recipe: Recipe) -> Callable[[Any], Any]:
    return over_the_full_base(recipe.adapter).wrap if recipe.adapter.form == "adapter" else lambda model: model


def _generation(
    config: Any, dtype: torch.dtype, asking: Asking, machine: Machine, *, writes_to_the_limit: bool, alike: bool, say: Say,
    wrap: Callable[[Any], Any] = lambda model: model,
) -> Answers:  # fmt: skip
    """Of answering everything."""
    if asking.reading is not None:
        return _reading(config, dtype, asking.reading, machine, alike=alike, wrap=wrap, say=say)
    rows = min(GENERATION_ROWS, len(asking.prompts))
    written = sorted(asking.answers)[int(0.95 * (len(asking.answers) - 1))] + 1
    expected = asking.max_new_tokens if writes_to_the_limit else min(written, asking.max_new_tokens)
    mean = math.ceil(statistics.fmean(asking.prompts))

    padded = (lambda prompt: prompt) if config.is_encoder_decoder else padded_prompt
    lengths = [(padded(max(asking.prompts)), max(2, asking.max_new_tokens)), (padded(mean), max(2, expected))]
    longest, usual = by_few(config, alike, lambda one, more: trace_generation(
        one, dtype=dtype, rows=rows, lengths=lengths, wrap=wrap, more=more
    ))  # fmt: skip
    peak = max(longest.prefill.peak.total, longest.decode.peak.total)
    rates = calibrate([usual.prefill.tracker], machine.calibrations, say=say)
    prefill, decode = price(usual.prefill.events, rates), price(usual.decode.events, rates)
    batches = math.ceil(len(asking.prompts) / rows)
    kernels = machine.kernels()
    counts = 1 if writes_to_the_limit else min(rows, len(set(asking.answers)))
    compiled = of_answers(
        asking.prompts, rows, counts, expected * batches, kernels.shapes(usual.prefill.events), kernels.shapes(usual.decode.events)
    )  # fmt: skip
    value = batches * (prefill + decode * expected)
    low, high = (
        batches * (prefill + decode * min(written, expected)),
        batches * (prefill + decode * asking.max_new_tokens),
    )
    seconds = Range(value, low * (1 - TIME_BELOW), high * (1 + TIME_ABOVE))
    return Answers(seconds + _compiling(kernels, total(compiled)), peak, compiled)


def _reading(
    config: Any,
    dtype: torch.dtype,
    reading: Reading,
    machine: Machine,
    *,
    alike: bool,
    wrap: Callable[[Any], Any],
    say: Say,
) -> Answers:
    """Of reading every batch."""
    batches = reading.batches or [[number] for number in range(len(reading.feed))]
    sizes = [sum(reading.feed.encoded[row].num_tokens for row in batch) for batch in batches]
    batch_of = lambda number: reading.feed.batches(batches[number], seed=0, step=0, packing=True, capacity=1 << 60)
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    median = sizes.index(statistics.median_low(sizes))

    def read(number: int) -> Trace:
        return by_few(config, alike, lambda one, more: trace_reading(
            one, dtype=dtype, head=reading.head, objective=reading.objective, batches=partial(batch_of, number), wrap=wrap, more=more
        ))  # fmt: skip

    usual = read(median)
    each = price(usual.events, calibrate([usual], machine.calibrations, say=say))
    kernels = machine.kernels()
    compiled = {shape: float(len(set(sizes))) for shape in kernels.shapes(usual.events)}
    seconds = around(each * len(sizes), TIME_BELOW, TIME_ABOVE) + _compiling(kernels, total(compiled))
    return Answers(seconds, read(longest).peak.total, compiled)


def _compiling(kernels: Kernels, compiled: float) -> Range:
    return around(compiled * kernels.seconds_each, TIME_BELOW, TIME_ABOVE)


def _disk(sizes: dict[str, int]) -> Range:
    """Two checkpoints and the result; a short run has one checkpoint, and while saving there are three."""
    checkpoint, result = sizes["trained"] + sizes["state"], sizes["trained"]
    return Range(2 * checkpoint + result, checkpoint + result, 3 * checkpoint + result) * (1 + FILE_HEADERS)


def _process(baseline: float, live: float, kernels: Kernels, compiled: float) -> Range:
    """What it holds before a model is there, with the kernels: none of them to as many as are kept; and what is live."""
    held = Range(baseline + kernels.held(compiled), baseline - SLACK, baseline + kernels.held(KEPT) + SLACK)
    return held + around(live, MEMORY_BELOW, MEMORY_ABOVE)


def _with_bill(
    quantities: dict[str, Range], breakdown: dict[str, float], machine: Machine, notes: tuple[str, ...]
) -> Estimate:
    known, unknown = bill(quantities["seconds"], watts=machine.watts, usd_per_hour=machine.usd_per_hour)
    notes = (
        *notes,
        "time is from this machine's own speed at each operation, measured alone; energy is watts as stated x time",
    )
    return Estimate({**quantities, **known}, breakdown, unknown, notes)
