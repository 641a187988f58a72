"""The plan of a rung beside the run of it: the same bytes, a bill that adds up, reasons where it cannot say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.full import Full, Head, LastLayers
from genwright.adapters.lora import LoRA
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.objectives.language import Instruction
from genwright.parallel.norm import global_norm
from genwright.plan.estimate import QUANTITIES
from genwright.plan.here.rungs import Asking, Machine, plan_prompting, plan_training, steps_to_trace
from genwright.plan.here.trace import build_fake, trace_generation, trace_step
from genwright.plan.here.tracker import Tracker

CONFIG = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True)  # fmt: skip
ROWS = [Encoded([1] * length, [place > 3 for place in range(length)], 0, str(length)) for length in range(5, 30)]
FEED = plain_feed(ROWS)
ASKING = Asking([10, 20, 12], [5, 6, 7], 16)


def recipe(adapter: object = None, **changes: object) -> Recipe:
    return Recipe(
        Instruction(),
        adapter or LoRA(rank=4),
        **{"precision": "fp32", "steps": 5, "batch_size": 4, "learning_rate": 1e-3, **changes},
    )  # type: ignore[arg-type]


def load(dtype: torch.dtype, attention: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG, attn_implementation=attention).to(dtype)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "adapter", [LoRA(rank=4), Full(), LastLayers(layers=1), Head()], ids=lambda adapter: type(adapter).__name__
)
def test_planned_live_bytes_are_those_of_the_real_step(adapter: object, precision: str) -> None:
    """The same tracker on real tensors: same peak to a few scalars, same FLOPs, for every adapter and precision."""
    one = recipe(adapter, precision=precision)
    step = steps_to_trace(one, FEED)[0]
    fake = build_fake(one, CONFIG)
    planned = trace_step(fake, lambda: microbatches_of_step(one, FEED, step)[1], one)
    built = build(one, load)
    tracker = Tracker(vocabulary=64)
    run = lambda: train_step(built.model, built.optimizer, built.objective, microbatches_of_step(one, FEED, step)[1],
                             max_norm=one.max_norm, global_norm=global_norm)  # fmt: skip
    run()
    built.optimizer.zero_grad(set_to_none=True)
    tracker.track([*built.model.parameters(), *built.model.buffers()], "weights")
    tracker.track([value for state in built.optimizer.state.values() for value in state.values()], "optimizer")
    with tracker, tracker.phase("activations"):
        run()
    assert planned.peak.total == pytest.approx(tracker.peak.total, abs=256)
    assert planned.flops == sum(event.flops for event in tracker.events) > 0


def test_weights_and_optimizer_are_named_right() -> None:
    """Full, fp32: AdamW holds two moments and a counter for each of the weights."""
    fake = build_fake(recipe(Full()), CONFIG)
    peak = trace_step(fake, lambda: microbatches_of_step(recipe(Full()), FEED, 0)[1], recipe(Full())).peak
    weights = sum(parameter.numel() for parameter in fake.built.model.parameters()) * 4
    tensors = len(list(fake.built.model.parameters()))
    assert peak.parts["optimizer"] == 2 * weights + 4 * tensors
    assert fake.bytes_of("weights") == pytest.approx(weights, rel=0.02)  # and the rotary tables


def test_the_longest_step_has_the_longest_microbatch() -> None:
    one = recipe()
    longest, _ = steps_to_trace(one, FEED)
    size = lambda step: max(batch.input_ids_BT.numel() for batch in microbatches_of_step(one, FEED, step)[1])
    assert size(longest) == max(size(step) for step in range(one.steps))


def test_a_cache_grows_with_rows_and_length_as_the_closed_form_says() -> None:
    """2 (keys, values) x layers x key heads x head width x 4 bytes, a token and row."""
    longer, shorter = trace_generation(CONFIG, dtype=torch.float32, rows=4, lengths=[(40, 8), (20, 8)])
    per_token = 2 * 2 * 2 * 8 * 4
    held = longer.decode.events[0].live - shorter.decode.events[0].live
    assert held == pytest.approx(20 * 4 * per_token, rel=0.1)


def test_what_was_asked_before_leaves_nothing_behind() -> None:
    told = lambda lengths: [
        (one.prefill.peak, one.prefill.events, one.decode.peak, one.decode.events)
        for one in trace_generation(CONFIG, dtype=torch.float32, rows=4, lengths=lengths)
    ]
    assert told([(40, 8), (20, 4)]) == [*told([(40, 8)]), *told([(20, 4)])]


def test_a_training_plan_has_every_quantity_and_a_range_around_it(tmp_path: Path) -> None:
    estimate = plan_training(recipe(), CONFIG, FEED, ASKING, Machine(tmp_path, 50.0, 2.0), weights_bytes=10**6)
    assert set(estimate.quantities) == set(QUANTITIES) and not estimate.unknown
    for name, quantity in estimate.quantities.items():
        assert 0 < quantity.low <= quantity.value <= quantity.high, name
    seconds = estimate.quantities["train_seconds"].value + estimate.quantities["evaluate_seconds"].value
    assert estimate.quantities["seconds"].value == pytest.approx(seconds)
    assert estimate.quantities["joules"].value == pytest.approx(50.0 * seconds)
    assert estimate.quantities["usd"].value == pytest.approx(2.0 * seconds / 3600)
    assert estimate.quantities["host_bytes"].value == max(
        quantity.value for name, quantity in estimate.quantities.items() if name.endswith("_peak_bytes")
    )


def test_what_the_project_does_not_state_is_unknown_with_its_reason(tmp_path: Path) -> None:
    estimate = plan_prompting(CONFIG, ASKING, Machine(tmp_path), precision="fp32", weights_bytes=10**6)
    assert "set hardware.watts" in estimate.unknown["joules"] and "set hardware.usd_per_hour" in estimate.unknown["usd"]
    assert estimate.to_json()["joules"] is None and estimate.to_json()["train_peak_bytes"] is None
    assert list(tmp_path.glob("calibration-*.json"))
