"""N steps equal k, stop, N - k: bit for bit, in the middle of an epoch, for every adapter, packed and padded."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genwright.adapters.base import trainable
from genwright.adapters.full import Full, Head, LastLayers
from genwright.adapters.lora import LoRA
from genwright.base.errors import Corrupt, DiskFull
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


def three_saved(recipe: Any, built: Callable, feed: Feed, root: Path) -> None:
    ready = built(recipe)
    for done in train(ready, recipe, feed):
        if done.step in (2, 4, 6):
            checkpoint.save(root, ready, step=done.step, recipe=recipe.identity(), state={"history": [done.step]})


def test_the_newest_two_are_kept(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000006"]


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_is_used(
    name: str, damage: str, recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    file = tmp_path / "step-000006" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.unlink()
    if damage != "remove":
        file.write_bytes(bytes(data[: len(data) // 2] if damage == "truncate" else data))
    said: list[str] = []
    found = checkpoint.latest(tmp_path, recipe=recipe().identity(), say=said.append)
    assert found is not None and found.step == 4
    assert "step-000006" in said[0] and "Set aside" in said[0]
    assert (tmp_path / "damaged-step-000006").exists()


def test_corrupt_names_the_file(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    (tmp_path / "step-000006" / "optimizer.safetensors").write_bytes(b"no")
    with pytest.raises(Corrupt, match=r"step-000006: optimizer.safetensors is not what was written"):
        checkpoint.opened(tmp_path / "step-000006")


def test_another_recipes_checkpoint_is_not_resumed(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    assert checkpoint.latest(tmp_path, recipe=recipe(learning_rate=2e-2).identity(), say=print) is None


def test_what_the_consumer_remembers_comes_back(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    found = checkpoint.latest(tmp_path, recipe=recipe().identity(), say=print)
    assert found is not None and found.state["history"] == [6]
    assert json.loads((found.folder / "state.json").read_text())["step"] == 6


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE makes the system refuse a file beyond 4 KiB, as a full disk would."""
    import signal

    one = recipe()
    ready = built(one)
    interrupted(ready, one, feed, 2, tmp_path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskFull, match="The disk is full"):
            checkpoint.save(tmp_path, ready, step=3, recipe=one.identity(), state={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
