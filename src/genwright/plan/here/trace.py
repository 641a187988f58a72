"""Run what `apply` would run on fake tensors: the same build, the same step, the same generation; nothing is computed.

A Trace is the events and the peak of one phase. The training trace runs two steps, for optimizer state is born in the
first and the true peak is the second's.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
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
from genwright.plan.here.repeated import Repeated
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


class AsHere(FakeTensorMode):
    """Fake tensors beside real ones (columns were made before), of the types that a CPU computes.

    A CPU's layer norm of bfloat16 under float32 weights keeps the rows' means and deviations in float32
    (ATen/native/cpu/mixed_data_type.h); torch's fake one gives them the input's type.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._unsafe_view.default:
            func = torch.ops.aten.view.default  # the same bytes seen otherwise; torch remembers what this one answers
        out: Any = super().__torch_dispatch__(func, types, args, kwargs or {})
        if func is torch.ops.aten.native_layer_norm.default and (weight := args[2]) is not None:
            return out[0], out[1].to(weight.dtype), out[2].to(weight.dtype)
        return out


class AllFinite(AsHere):
    """Where a check asks whether something is so, such as whether merged weights are finite, it is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return True
        return super().__torch_dispatch__(func, types, args, kwargs)


@dataclass(frozen=True)
class BuiltFake:
    """A recipe built on fake tensors, under watch."""

    mode: AsHere
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
    mode = AsHere()
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, tracker, tracker.phase("weights"):
        built = build(recipe, lambda dtype, attention: build_model(config, dtype, attention, recipe.head), place)
        build_peak = tracker.peak.total
    tracker.track([*built.model.parameters(), *built.model.buffers()], "weights")
    tracker.watch_gradients(built.parameters)
    return BuiltFake(mode, built, tracker, build_peak)


def trace_step(
    fake: BuiltFake,
    make_batches: Callable[[], Sequence[Batch]],
    recipe: Recipe,
    at: Callable[[str], Any] = lambda _: None,
) -> Trace:
    """One optimiser step with optimizer state in place. `make_batches` is called under the fake mode.

    `at` is told where it is: "passes" as the first microbatch begins, "update" after the last one's backward.
    """
    built, tracker = fake.built, fake.tracker
    bear_state(fake)
    with fake.mode, tracker:
        built.optimizer.zero_grad(set_to_none=True)
        batches = make_batches()
        first = len(tracker.events)
        with tracker.phase("activations"):
            at("passes")
            updates_at = _run_step(built, batches, recipe, tracker, at)
        peak = tracker.peak
    return Trace(tracker.events[first:], peak, tracker, updates_at - first)


def bear_state(fake: BuiltFake) -> None:
    """What the first step leaves in the optimizer, without the step: only gradients' shapes decide it."""
    built, tracker = fake.built, fake.tracker
    if built.optimizer.state:
        return
    with fake.mode, tracker:
        for parameter in built.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        built.optimizer.step()
        built.optimizer.zero_grad(set_to_none=True)
        tracker.track([one for state in built.optimizer.state.values() for one in state.values()], "optimizer")


def _run_step(
    built: Built, batches: Sequence[Batch], recipe: Recipe, tracker: Tracker, at: Callable[[str], Any]
) -> int:
    """Events before the gradients' norm was taken."""
    before = 0

    def norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        nonlocal before
        before = len(tracker.events)
        at("update")
        return global_norm(gradients)

    shared = built.team.share(built.model, batches)
    train_step(built.model, built.optimizer, built.objective, shared, max_norm=recipe.max_norm, global_norm=norm)
    return before


@dataclass(frozen=True)
class GenerationTrace:
    """Reading the prompts, and one step of writing with the cache at `cached` tokens."""

    prefill: Trace
    decode: Trace


def trace_generation(
    config: Any, *, dtype: torch.dtype, rows: int, lengths: Sequence[tuple[int, int]], wrap: Callable[[Any], Any] = lambda m: m,
    more: Sequence[int] = (),
) -> list[GenerationTrace]:  # fmt: skip
    """For each (prompt, new): `rows` prompts of `prompt` tokens, then a step at the last of `new` tokens, where the cache is longest.

    `more`: layers that the whole model has besides, as `Repeated` tells them.
    """
    mode = AsHere()
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, torch.no_grad():
        model = wrap(build_model(config, dtype, "sdpa")).eval()
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    whole = Repeated(tracker, model, more)
    with mode, tracker, torch.no_grad(), ordinary_attention(model):
        return [_answered(model, whole, rows, *one) for one in lengths]


def _answered(model: Any, whole: Repeated, rows: int, prompt: int, new: int) -> GenerationTrace:
    """A word's logits stand until the next word's are there: `read` holds them."""
    before, written = Counter(whole.standing), prompt + new - 2
    prefill, read = _trace_forward(model, whole, rows, prompt, None)
    if each := _grown(read.past_key_values, written):
        whole.stand("cache and activations", lambda _: each)
        each.clear()  # writing copies a layer's cache and lets go of it
    else:
        del read
        _, read = _trace_forward(model, whole, rows, written, None)
        whole.keep()
    decode, _ = _trace_forward(model, whole, rows, 1, read, seen=written)
    whole.standing = before
    return GenerationTrace(prefill, decode)


def _grown(cache: Any, tokens: int) -> list[torch.Tensor]:
    """Make a plain cache as long as it is after `tokens`; what a layer of it holds then. None for any other kind."""
    layers = getattr(cache, "layers", [])
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in layers):
        return []
    for layer in layers:
        for name in ("keys", "values"):
            before = getattr(layer, name)
            setattr(layer, name, before.new_empty(*before.shape[:-2], tokens, before.shape[-1]))
    return [layers[0].keys, layers[0].values] if layers else []


def _trace_forward(model: Any, whole: Repeated, rows: int, length: int, read: Any, seen: int = 0) -> tuple[Trace, Any]:
    encodes = family_of(model.config) == "encoder-decoder"
    given = (_source_and_target if encodes else _next_tokens)(rows, length, read, seen)
    with whole.tracker.phase("cache and activations"), whole.watch():
        out = model(**given, use_cache=True)
        told = whole.told()
    return Trace(told.events, told.peak, whole.tracker), out


def _next_tokens(rows: int, length: int, read: Any, seen: int) -> dict[str, Any]:
    """What a decoder reads: `length` tokens a row after the `seen` ones that were `read`."""
    cache = None if read is None else read.past_key_values
    ids, mask = torch.zeros(rows, length, dtype=torch.long), torch.ones(rows, seen + length, dtype=torch.long)
    places = torch.zeros(rows, length, dtype=torch.long)  # each row's own, as padding stands on the left
    return {
        "input_ids": ids, "attention_mask": mask, "position_ids": places, "past_key_values": cache, "logits_to_keep": 1
    }  # fmt: skip


def _source_and_target(rows: int, length: int, read: Any, seen: int) -> dict[str, Any]:
    """What an encoder-decoder reads: a source and the target's first token; or, where a source was `read`, one more token."""
    one = torch.zeros(rows, 1, dtype=torch.long)
    if read is None:
        source = torch.zeros(rows, length, dtype=torch.long)
        return {"input_ids": source, "attention_mask": torch.ones_like(source), "decoder_input_ids": one}
    return {
        "encoder_outputs": (read.encoder_last_hidden_state,), "attention_mask": torch.ones(rows, seen, dtype=torch.long),
        "decoder_input_ids": one, "past_key_values": read.past_key_values,
    }  # fmt: skip


def trace_reading(
    config: Any, *, dtype: torch.dtype, head: Head, objective: Callable[[Any, Any], Any], batches: Callable[[], Sequence[Batch]],
    wrap: Callable[[Any], Any] = lambda m: m, more: Sequence[int] = (),
) -> Trace:  # fmt: skip
    """The objective on some microbatches, without gradients. `batches` is called under the fake mode; `more` as for generation."""
    mode = AsHere()
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    with fake_weights_can_be_cast(), mode, torch.no_grad():
        model = wrap(build_model(config, dtype, NAME, head)).eval()
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    whole = Repeated(tracker, model, more)
    with mode, tracker, torch.no_grad(), tracker.phase("activations"), whole.watch():
        for batch in batches():
            objective(model, batch)
        told = whole.told()
    return Trace(told.events, told.peak, tracker)


def over_the_full_base(adapter: Any) -> Any:
    """The adapter as it answers and is merged: over the base's own weights, also where it was trained over fewer bits."""
    return dataclasses.replace(adapter, base="") if hasattr(adapter, "base") else adapter


def trace_merge(recipe: Recipe, config: Any) -> int:
    """Peak of live bytes while an adapter is merged in float32 and the result is handed over as one state dict."""
    mode = AllFinite()
    tracker = Tracker()
    with fake_weights_can_be_cast(), mode, tracker, torch.no_grad():
        model: Any = over_the_full_base(recipe.adapter).wrap(build_model(config, torch.float32, "sdpa", recipe.head))
        if recipe.adapter.form == "adapter" and recipe.adapter.mergeable:
            model = model.merge_and_unload(safe_merge=True)
    return tracker.peak.total
