"""Only the head is trained: the body is asked once, and what is learned is what it would have been."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from genwright.adapters.full import Full, Head
from genwright.data.layouts import Feed
from genwright.engine.columns import blank_columns, with_columns
from genwright.engine.hidden import COLUMN, keeps_hidden
from genwright.engine.loop import mean_loss, microbatches_of_step, train
from genwright.engine.step import train_step
from genwright.parallel.norm import global_norm
from genwright.plan.here.tracker import Tracker


def weights(built: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in built.parameters.values()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_states_train_the_same_head(precision: str, recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(adapter=Head(), precision=precision)
    plain, kept = built(one), built(one)
    stored = with_columns(one, kept, feed, lambda: None)
    assert all(COLUMN in row.columns for row in stored.encoded) and COLUMN not in feed.encoded[0].columns
    before = [done.loss for done in train(plain, one, feed)]
    after = [done.loss for done in train(kept, one, stored)]
    near = {"fp32": 1e-5, "bf16": 2e-2}[precision]
    assert after == pytest.approx(before, rel=near)
    assert mean_loss(kept, one, stored) == pytest.approx(mean_loss(kept, one, feed), rel=near)
    if precision == "fp32":
        for one_weight, other in zip(weights(plain), weights(kept)):
            torch.testing.assert_close(one_weight, other, atol=1e-4, rtol=1e-3)


def test_a_step_then_multiplies_by_the_head_alone(recipe: Callable, built: Callable, feed: Feed) -> None:
    """Forward and the head's weight gradient: 4 N H V FLOPs, N rounded up to 32; the states need no gradient."""
    one = recipe(adapter=Head(), pack_tokens=1000)
    ready = built(one)
    batches = microbatches_of_step(one, with_columns(one, ready, feed, lambda: None), 0)[1]
    with Tracker() as tracker:
        train_step(ready.model, ready.optimizer, ready.objective, batches, max_norm=1.0, global_norm=global_norm)
    rounded = sum(-(-batch.learned_tokens // 32) * 32 for batch in batches)
    assert sum(event.flops for event in tracker.events) == 4 * rounded * 32 * 50


def test_states_are_kept_only_where_they_stay_true(recipe: Callable, built: Callable, feed: Feed) -> None:
    one, config = recipe(adapter=Head()), built(recipe()).model.config
    assert keeps_hidden(one, config, feed)
    assert not keeps_hidden(recipe(adapter=Full()), config, feed)
    assert not keeps_hidden(replace(one, steps=2), config, feed)
    for name, value in (("attention_dropout", 0.1), ("final_logit_softcapping", 30.0)):
        other = type(config)(**{**config.to_dict(), name: value})
        assert not keeps_hidden(one, other, feed), name
    planned = blank_columns(one, feed, config)
    assert planned.encoded[0].columns[COLUMN].shape == (sum(feed.encoded[0].learned[1:]), 32)
    assert COLUMN not in blank_columns(one, feed, config, ranks=2).encoded[0].columns
