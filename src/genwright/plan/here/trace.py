"""Run what `apply` would run on fake tensors: the same build, the same step, the same generation; nothing is computed.

A Trace is the events and the peak of one phase. The training trace runs two steps, for optimizer state is born in the
first and the true peak is the second's.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.cache_utils import DynamicCache, DynamicLayer

from genwright.data.collate import Batch
from genwright.engine.build import Built, build
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.attention import NAME, ordinary_attention
from genwright.models.families import Head, family_of
from genwright.models.load import build_model
from genwright.parallel.mesh import SINGLE, Placement
from genwright.parallel.norm import global_norm
from genwright.plan.here.tracker import Event, Peak, Tracker


@dataclass(frozen=True)
class Trace:
    """What one phase did: its events in order, and its peak of live bytes by part."""

    events: list[Event]
    peak: Peak
    tracker: Tracker
    updates_at: int = 0
    """Number of the first event after the last backward: gradients' norm, clipping, the optimizer."""

    @property
    def arguments(self) -> dict[str, Any]:
        """As of the tracker: what `calibrate` runs alone."""
        return self.tracker.arguments

    def passes(self) -> Trace:
        """Forwards and backwards only."""
        return dataclasses.replace(self, events=self.events[: self.updates_at])

    def update(self) -> Trace:
        """What follows them: the same for every step, whatever its rows."""
        return dataclasses.replace(self, events=self.events[self.updates_at :])

    @property
    def flops(self) -> int:
        """Of all its operations."""
        return sum(event.flops for event in self.events)


@dataclass(frozen=True)
class BuiltFake:
    """A recipe built on fake tensors, under watch."""

    mode: FakeTensorMode
    built: Built
    tracker: Tracker
    build_peak: int

    def bytes_of(self, part: str) -> int:
        """Live bytes of a part now: "weights", "optimizer"."""
        return self.tracker._sums.get(part, 0)


@contextmanager
def fake_weights_can_be_cast() -> Iterator[None]:
    """`Module.to` swaps fake parameters, which fails while anything refers to them weakly; assigning `.data` does not.

    `peft` asks fake weights for their address, to see whether they are tied; torch warns of it, and the answer serves.
    """
    swap = torch.utils.swap_tensors
    torch.utils.swap_tensors = lambda into, tensor: setattr(into, "data", tensor.data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.utils.swap_tensors = swap


def build_fake(recipe: Recipe, config: Any, place: Placement = SINGLE) -> BuiltFake:
    """`engine.build` on fake tensors; the weights are named, gradients will be. Several ranks want `fake_ranks` around it."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # columns are real: they were made before
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, tracker, tracker.phase("weights"):
        built = build(recipe, lambda dtype, attention: build_model(config, dtype, attention, recipe.head), place)
        build_peak = tracker.peak.total
    tracker.track([*built.model.parameters(), *built.model.buffers()], "weights")
    tracker.watch_gradients(built.parameters)
    return BuiltFake(mode, built, tracker, build_peak)


def trace_step(fake: BuiltFake, make_batches: Callable[[], Sequence[Batch]], recipe: Recipe) -> Trace:
    """One optimiser step with optimizer state in place. `make_batches` is called under the fake mode."""
    built, tracker = fake.built, fake.tracker
    with fake.mode, tracker:
        if not built.optimizer.state:
            _bear_state(built)
            tracker.track(
                [tensor for state in built.optimizer.state.values() for tensor in state.values()], "optimizer"
            )
        built.optimizer.zero_grad(set_to_none=True)
        batches = make_batches()
        first = len(tracker.events)
        with tracker.phase("activations"):
            updates_at = _run_step(built, batches, recipe, tracker)
        peak = tracker.peak
    return Trace(tracker.events[first:], peak, tracker, updates_at - first)


def _bear_state(built: Built) -> None:
    """What the first step leaves in the optimizer, without the step: only gradients' shapes decide it."""
    for parameter in built.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    built.optimizer.step()
    built.optimizer.zero_grad(set_to_none=True)


def _run_step(built: Built, batches: Sequence[Batch], recipe: Recipe, tracker: Tracker) -> int:
    """Events before the gradients' norm was taken."""
    at = 0

    def norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        nonlocal at
        at = len(tracker.events)
        return global_norm(gradients)

    shared = built.team.share(built.model, batches)
    train_step(built.model, built.optimizer, built.objective, shared, max_norm=recipe.max_norm, global_norm=norm)
    return at


@dataclass(frozen=True)
class GenerationTrace:
    """Reading the prompts, and one step of writing with the cache at `cached` tokens."""

    prefill: Trace
    decode: Trace


def trace_generation(
    config: Any, *, dtype: torch.dtype, rows: int, prompt: int, new: int, wrap: Callable[[Any], Any] = lambda m: m
) -> GenerationTrace:
    """A batch of `rows` prompts of `prompt` tokens, then a step at the last of `new` tokens, where the cache is longest."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # columns are real: they were made before
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, torch.no_grad():
        model = wrap(build_model(config, dtype, "sdpa")).eval()
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    with mode, tracker, torch.no_grad(), ordinary_attention(model):
        prefill, cache = _trace_forward(model, tracker, rows, prompt, None)
        if not _grown(cache, prompt + new - 2):
            del cache
            _, cache = _trace_forward(model, tracker, rows, prompt + new - 2, None)
        decode, _ = _trace_forward(model, tracker, rows, 1, cache, seen=prompt + new - 2)
    return GenerationTrace(prefill, decode)


def _grown(cache: Any, tokens: int) -> bool:
    """Make a plain cache as long as it is after `tokens`; False for any other kind."""
    layers = getattr(cache, "layers", [])
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in layers):
        return False
    for layer in layers:
        for name in ("keys", "values"):
            before = getattr(layer, name)
            setattr(layer, name, before.new_empty(*before.shape[:-2], tokens, before.shape[-1]))
    return bool(layers)


def _trace_forward(
    model: Any, tracker: Tracker, rows: int, length: int, cache: Any, seen: int = 0
) -> tuple[Trace, Any]:
    if family_of(model.config) == "encoder-decoder":
        return _trace_source_and_target(model, tracker, rows, length, cache, seen)
    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones(rows, seen + length, dtype=torch.long)
    first = len(tracker.events)
    with tracker.phase("cache and activations"):
        out = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Trace(tracker.events[first:], tracker.peak, tracker), out.past_key_values


def _trace_source_and_target(
    model: Any, tracker: Tracker, rows: int, length: int, read: Any, seen: int
) -> tuple[Trace, Any]:
    """Reading a source and writing the first token; or, where a source was `read`, one more token."""
    one, first = torch.zeros(rows, 1, dtype=torch.long), len(tracker.events)
    with tracker.phase("cache and activations"):
        if read is None:
            source = torch.zeros(rows, length, dtype=torch.long)
            read = model(
                input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=one, use_cache=True
            )
        else:
            given = (read.encoder_last_hidden_state,)
            read = model(
                encoder_outputs=given, attention_mask=torch.ones(rows, seen, dtype=torch.long), decoder_input_ids=one,
                past_key_values=read.past_key_values, use_cache=True,
            )  # fmt: skip
    return Trace(tracker.events[first:], tracker.peak, tracker), read


def trace_reading(
    config: Any, *, dtype: torch.dtype, head: Head, objective: Callable[[Any, Any], Any], batches: Callable[[], Sequence[Batch]],
    wrap: Callable[[Any], Any] = lambda m: m,
) -> Trace:  # fmt: skip
    """The objective on some microbatches, without gradients. `batches` is called under the fake mode."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # columns are real: they were made before
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, torch.no_grad():
        model = wrap(build_model(config, dtype, NAME, head)).eval()
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    with mode, tracker, torch.no_grad(), tracker.phase("activations"):
        for batch in batches():
            objective(model, batch)
    return Trace(tracker.events, tracker.peak, tracker)


def over_the_full_base(adapter: Any) -> Any:
    """The adapter as it answers and is merged: over the base's own weights, also where it was trained over fewer bits."""
    return dataclasses.replace(adapter, base="") if hasattr(adapter, "base") else adapter


def trace_merge(recipe: Recipe, config: Any) -> int:
    """Peak of live bytes while an adapter is merged in float32 and the result is handed over as one state dict."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # columns are real: they were made before
    tracker = Tracker()
    with fake_weights_can_be_cast(), mode, tracker, torch.no_grad():
        model: Any = over_the_full_base(recipe.adapter).wrap(build_model(config, torch.float32, "sdpa", recipe.head))
        if recipe.adapter.form == "adapter" and recipe.adapter.mergeable:
            model = model.merge_and_unload()
    return tracker.peak.total
