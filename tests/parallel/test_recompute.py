"""Recomputing changes what is kept, and not one bit of what comes out."""

from __future__ import annotations

import pytest
import torch
import workers
from torch.autograd.graph import saved_tensors_hooks

from genwright.adapters.lora import LoRA
from genwright.base.errors import RecipeError
from genwright.engine.build import build
from genwright.engine.recipe import Recipe
from genwright.models.surgery import layers_of
from genwright.objectives.language import Instruction
from genwright.parallel.mesh import placement
from genwright.parallel.recompute import num_recomputed, recompute_


@pytest.mark.parametrize(("choice", "expected"), [("none", 0), ("full", 3), (0, 0), (2, 2), (3, 3)])
def test_number_of_layers(choice: str | int, expected: int) -> None:
    assert num_recomputed(choice, 3) == expected


@pytest.mark.parametrize(
    ("choice", "words"), [(4, "found:  4(.|\n)*recompute = 3"), (-1, "recompute = 0"), ("some", 'do:.*"none"')]
)
def test_a_choice_that_cannot_be_read(choice: str | int, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        num_recomputed(choice, 3)


def recipe(adapter: str, dropout: float) -> Recipe:
    if adapter == "full":
        return workers.recipe("full")
    return Recipe(LORA_OBJECTIVE, LoRA(rank=4, dropout=dropout), "fp32", steps=1, batch_size=4, learning_rate=1e-2)


LORA_OBJECTIVE = Instruction()


def kept_and_gradients(adapter: str, choice: str | int, dropout: float = 0.0) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes that the forward keeps, and the gradients."""
    made = recipe(adapter, dropout)
    built = build(made, workers.load(), placement("single", recompute=choice))
    batch = workers.feed().batches([0, 1, 2, 3], seed=0, step=0, packing=True, capacity=100)[0]
    weights, kept = {one.untyped_storage().data_ptr() for one in built.model.parameters()}, {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        if one.untyped_storage().data_ptr() not in weights:
            kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    torch.manual_seed(3)
    with saved_tensors_hooks(keep, lambda one: one):
        loss = built.objective(built.model, batch).terms["tokens"].total
    size = sum(kept.values())
    loss.backward()
    return size, {name: one.grad for name, one in built.parameters.items()}


@pytest.mark.parametrize(("adapter", "dropout"), [("full", 0.0), ("lora", 0.0), ("lora", 0.3)])
def test_equal_gradients_and_fewer_bytes_with_every_layer(adapter: str, dropout: float) -> None:
    found = {choice: kept_and_gradients(adapter, choice, dropout) for choice in ("none", 1, 2, "full")}
    _, expected = found["none"]
    for _, gradients in found.values():
        assert all(torch.equal(gradients[name], gradient) for name, gradient in expected.items())
    sizes = [size for size, _ in found.values()]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


def test_the_lowest_layers_are_recomputed_and_no_name_changes() -> None:
    model = workers.load()(torch.float32, "eager")
    names = list(model.state_dict())
    assert recompute_(layers_of(model)[0], 2) == 2
    assert ["forward" in vars(layer) for layer in layers_of(model)[0]] == [True, True, False]
    assert list(model.state_dict()) == names
