"""What a plan says is live in each phase, beside the same tracker on the real tensors of the real code."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from genwright.adapters.full import Full
from genwright.data.blank import blank_feed
from genwright.engine.build import Built, build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.load import build_model
from genwright.objectives.language import Masked
from genwright.parallel.norm import global_norm
from genwright.plan.here.trace import build_fake, trace_step
from genwright.plan.here.tracker import Tracker

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
