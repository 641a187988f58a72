"""What a plan says is live in each phase, beside the same tracker on the real tensors of the real code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaConfig

from genwright.adapters.full import Full, LastLayers
from genwright.adapters.lora import LoRA
from genwright.data.blank import blank_feed
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine import checkpoint
from genwright.engine.build import Built, build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.generate import Sampling, generate
from genwright.models.load import build_model
from genwright.objectives.language import Instruction, Masked
from genwright.parallel.norm import global_norm
from genwright.plan.here import rungs
from genwright.plan.here.kernels import Kernels
from genwright.plan.here.rungs import Asking, Machine, plan_training
from genwright.plan.here.trace import build_fake, over_the_full_base, trace_step
from genwright.plan.here.tracker import Tracker
from genwright.plan.priced.roofline import Rates
from genwright.precision.policy import resolve

BERT = AutoConfig.for_model("bert", vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                            max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip


def built_of(recipe: Recipe, config: Any) -> Built:
    return build(recipe, lambda dtype, attention: build_model(config, dtype, attention, recipe.head))


def tracked(built: Built) -> Tracker:
    """Weights and optimizer state named, as they are when something begins."""
    tracker = Tracker(vocabulary=512)
    tracker.track([*built.model.parameters(), *built.model.buffers()], "weights")
    tracker.track([value for state in built.optimizer.state.values() for value in state.values()], "optimizer")
    return tracker


def test_a_norm_of_two_types_keeps_what_it_keeps_for_each_row() -> None:
    """BERT's head norms bfloat16 rows by float32 weights: a CPU keeps mean and deviation in float32, 8 bytes a token."""
    recipe = Recipe(Masked(), Full(), "bf16", 2, 4, 1e-3, pack_tokens=4096)
    feed = blank_feed(Masked(), "encoder", 40, 4)
    batches = lambda: microbatches_of_step(recipe, feed, 0)[1]
    planned = trace_step(build_fake(recipe, BERT), batches, recipe)
    built = built_of(recipe, BERT)
    step = lambda made: train_step(
        built.model, built.optimizer, built.objective, made, max_norm=1.0, global_norm=global_norm
    )
    step(batches())
    built.optimizer.zero_grad(set_to_none=True)
    with (tracker := tracked(built)):
        made = batches()
        with tracker.phase("activations"):
            step(made)
    kept = lambda events: {event.signature for event in events if "layer_norm_backward" in event.op}
    assert kept(planned.events) == kept(tracker.events)
    assert planned.peak.total == tracker.peak.total


LLAMA = LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, max_position_embeddings=256)  # fmt: skip
FEED = plain_feed([Encoded([1] * n, [place > 3 for place in range(n)], 0, str(n)) for n in range(5, 30)])
RECIPES = [
    Recipe(Instruction(), adapter, precision, 5, 4, 1e-3)
    for adapter, precision in ((LoRA(rank=4), "fp32"), (Full(), "bf16"), (LastLayers(layers=1), "bf16"))
]


@pytest.fixture(params=RECIPES, ids=lambda recipe: type(recipe.adapter).__name__)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


@pytest.fixture
def live(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The plan's peak of a phase without the process around it, for a question of so many tokens and so long an answer."""
    monkeypatch.setattr(rungs, "calibrate", lambda *_, **__: Rates())
    monkeypatch.setattr(rungs, "process_bytes", lambda kernels: 0.0)
    monkeypatch.setattr(rungs, "kernels_of", lambda *_: Kernels())

    def planned(phase: str, prompt: int = 20, new: int = 8) -> float:
        asking = Asking([prompt] * 4, [new] * 4, new)
        found = plan_training(recipe, LLAMA, FEED, asking, Machine(tmp_path), weights_bytes=0)
        return found.quantities[f"{phase}_peak_bytes"].value

    return planned


def trained(recipe: Recipe) -> Built:
    built = built_of(recipe, LLAMA)
    batches = microbatches_of_step(recipe, FEED, 0)[1]
    train_step(built.model, built.optimizer, built.objective, batches, max_norm=1.0, global_norm=global_norm)
    return built


def test_saving_and_resuming_hold_what_is_planned(recipe: Recipe, live: Any, tmp_path: Path) -> None:
    """Saving stands beside the last step's gradients; resuming, in a process of its own, has none."""
    built = trained(recipe)
    saving = tracked(built)
    saving.track([weight.grad for weight in built.parameters.values() if weight.grad is not None], "gradients")
    with saving, saving.phase("copies"):
        checkpoint.save(tmp_path / "saved", built, step=1, recipe="one", state={})
    again = built_of(recipe, LLAMA)
    with (resuming := tracked(again)), resuming.phase("read"):
        found = checkpoint.latest(tmp_path / "saved", recipe="one", say=print)
        assert found is not None
        checkpoint.restore_(again, found)
    assert (saving.peak.total, resuming.peak.total) == (live("save"), live("resume"))


def test_merging_holds_what_is_planned(recipe: Recipe, live: Any) -> None:
    """As `export.merge` does it, with the check that the merged weights are numbers."""
    with Tracker() as tracker, torch.no_grad():
        model: Any = over_the_full_base(recipe.adapter).wrap(build_model(LLAMA, torch.float32))
        for weight in model.parameters():
            weight.zero_()
        if recipe.adapter.mergeable:
            model.merge_and_unload(safe_merge=True)
    assert tracker.peak.total == live("merge")


@pytest.mark.parametrize(("prompt", "new"), [(20, 8), (9, 90)], ids=["prompt", "answer"])
def test_answering_holds_what_is_planned(recipe: Recipe, live: Any, prompt: int, new: int) -> None:
    """The peak is the prompt's, or a long answer's. The rows' lengths, 8 bytes each, and what is counted by them, are left out."""
    dtype = resolve(recipe.precision).compute
    model: Any = build_model(LLAMA, dtype)
    model = over_the_full_base(recipe.adapter).wrap(model) if recipe.adapter.form == "adapter" else model
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    tracker = Tracker()
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    with tracker, tracker.phase("cache and activations"):
        generate(model, None, [[1] * prompt] * 4, Sampling(new), ends={511})
    assert tracker.peak.total == pytest.approx(live("evaluate", prompt, new), abs=64)
