"""N steps equal k, stop, N - k: bit for bit, in the middle of an epoch, for every adapter, packed and padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genwright.adapters.base import trainable
from genwright.adapters.full import Full, Head, LastLayers
from genwright.adapters.lora import LoRA
from genwright.data.layouts import Feed
from genwright.engine import checkpoint
from genwright.engine.loop import train

ADAPTERS = {
    "full": Full(),
    "last-layers": LastLayers(layers=1),
    "head": Head(),
    "lora": LoRA(rank=4),
    "lora-dropout": LoRA(rank=4, dropout=0.3),
}


def weights(built: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable(built.model).items()}


def state(built: Any) -> list[torch.Tensor]:
    return [
        value
        for parameter in built.parameters.values()
        for _, value in sorted(built.optimizer.state[parameter].items())
    ]


def interrupted(built: Any, recipe: Any, feed: Any, at: int, root: Path) -> None:
    for done in train(built, recipe, feed):
        if done.step == at:
            checkpoint.save(root, built, step=at, recipe=recipe.identity(), state={})
            return


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_resumed_equals_uninterrupted_bit_for_bit(
    adapter: str, packing: bool, precision: str, recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    """13 rows in fours: step 5 is in the middle of the second epoch."""
    one = recipe(adapter=ADAPTERS[adapter], packing=packing, precision=precision)
    whole = built(one)
    losses = [done.loss for done in train(whole, one, feed)]
    interrupted(built(one), one, feed, 5, tmp_path)
    resumed = built(one)
    found = checkpoint.latest(tmp_path, recipe=one.identity(), say=print)
    assert found is not None and found.step == 5
    checkpoint.restore_(resumed, found)
    rest = [done.loss for done in train(resumed, one, feed, start=found.step)]
    assert rest == losses[5:]
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state(resumed), state(whole)))
    assert any(not torch.equal(tensor, fresh) for tensor, fresh in zip(expected.values(), weights(built(one)).values()))


def test_packed_and_padded_are_one_step(recipe: Callable, built: Callable, feed: Feed) -> None:
    """The rows decide a step, not how they are laid out; nor how many microbatches there are."""
    losses = [
        [done.loss for done in train(built(one), one, feed)]
        for one in (recipe(), recipe(packing=False), recipe(pack_tokens=1000), recipe(pack_tokens=1))
    ]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
