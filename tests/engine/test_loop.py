"""The loop: a pure function of seed and step, and an end to a run whose loss is no number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from genwright.base.errors import Diverged
from genwright.data.layouts import Feed
from genwright.engine.loop import MOST_SKIPPED_IN_A_ROW, mean_loss, train


def test_same_seed_same_losses_and_another_seed_others(recipe: Callable, built: Callable, feed: Feed) -> None:
    run = lambda seed: [done.loss for done in train(built(recipe(seed=seed)), recipe(seed=seed), feed)]
    assert run(0) == run(0)
    assert run(0) != run(1)


def test_every_row_is_seen_once_an_epoch(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(steps=13)
    seen = [row for done in train(built(one), one, feed) for row in done.rows]
    for epoch in range(4):
        assert sorted(seen[epoch * 13 : epoch * 13 + 13]) == list(range(13))


def test_tokens_are_counted(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(steps=1)
    done = next(train(built(one), one, feed))
    assert done.tokens == sum(len(feed.encoded[row].input_ids) for row in done.rows)
    assert done.learned_tokens == sum(sum(feed.encoded[row].learned) for row in done.rows)


def test_a_run_that_diverges_ends_and_names_the_rows(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(steps=50)
    ready = built(one)
    with torch.no_grad():
        next(iter(ready.parameters.values())).fill_(float("nan"))
    seen = []
    with pytest.raises(Diverged, match=rf"(?s){MOST_SKIPPED_IN_A_ROW} steps in a row .*training rows \d+") as error:
        seen.extend(train(ready, one, feed))
    assert "lower adapt.learning_rate" in str(error.value)


def test_mean_loss_is_that_of_one_batch_and_trains_nothing(recipe: Callable, built: Callable, feed: Feed) -> None:
    ready = built(recipe())
    before = [parameter.detach().clone() for parameter in ready.parameters.values()]
    one, many = (mean_loss(ready, recipe(pack_tokens=capacity), feed) for capacity in (10_000, 40))
    assert one == pytest.approx(many, rel=1e-5)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(ready.parameters.values(), before))
    first = next(train(built(recipe(batch_size=13)), recipe(batch_size=13), feed))
    assert one == pytest.approx(first.loss, rel=1e-5)
