"""A deep model told by a few of its layers: what grows by the same amount with each layer is measured on three shallow models.

    f(L) = f(4) + (L - 4) (f(4) - f(3))        where f(4) - f(3) = f(3) - f(2), else the whole model is measured

Without gradients every byte and every operation is like that: a layer adds its weights, its part of the cache and its work.
A test holds it equal to the whole model, for every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from genwright.engine.recipe import Recipe
from genwright.models.families import Head
from genwright.models.load import build_model
from genwright.models.surgery import layers_of
from genwright.plan.here.trace import fake_weights_can_be_cast
from genwright.plan.traced.depth import depths, shrunk

SHALLOW = (2, 3, 4)
"""Layers of the models that are measured; the last stands for the rest."""
WORTH = 10
"""Layers from which it is faster."""


def by_layers(config: Any, measure: Callable[[Any], tuple[float, ...]], *, alike: bool) -> tuple[float, ...]:
    """`measure(config)` gives bytes, seconds, FLOPs of a model with that config; they are told for the whole of it.

    `alike` is what `layers_are_alike` says of the model as it is measured, adapters and all.
    """
    if not alike:
        return measure(config)
    first, second, third = (measure(shrunk(config, depth)[0]) for depth in SHALLOW)
    step = [later - earlier for earlier, later in zip(second, third, strict=True)]
    before = [later - earlier for earlier, later in zip(first, second, strict=True)]
    if not all(math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in zip(step, before, strict=True)):
        return measure(config)
    more = depths(config)[0] - SHALLOW[-1]
    return tuple(value + more * each for value, each in zip(third, step, strict=True))


def told_by_few(recipe: Recipe, config: Any) -> bool:
    """Whether a recipe's model is told by few of its layers, adapter and all.

    What trains weights of the base may do so in some layers only: it is asked of the whole model. An adapter is the same over
    every layer, unless it makes a weight that grows with their number, such as a prefix: it is asked of two shallow models.
    """
    if not recipe.adapter.trains_base and not layers_are_alike(shapes_of(config, head=recipe.head)):
        return False
    with FakeTensorMode(allow_non_fake_inputs=True), fake_weights_can_be_cast():
        if recipe.adapter.trains_base:
            return layers_are_alike(recipe.adapter.wrap(build_model(config, torch.float32, head=recipe.head)))
        outside = [_outside(recipe.adapter.wrap(build_model(shrunk(config, depth)[0], torch.float32, head=recipe.head)))
                   for depth in SHALLOW[:2]]  # fmt: skip
    return outside[0] == outside[1]


def shapes_of(config: Any, dtype: torch.dtype = torch.float32, head: Head | None = None) -> Any:
    """The model as names, shapes and types of its weights: nothing can be run on it, and it takes a third of a fake one's time."""
    with torch.device("meta"):
        return build_model(config, dtype, head=head)


def _outside(model: Any) -> list[Any]:
    """Shapes of what stands outside the layers."""
    inside = {id(parameter) for layer in layers_of(model)[0] for parameter in layer.parameters()}
    return [(name, one.shape) for name, one in model.named_parameters() if id(one) not in inside]


def layers_are_alike(model: Any) -> bool:
    """Whether the model is deep, and every layer but a stack's first two is shaped, trained and attends like the one before it."""
    found = depths(model.config)
    if min(found) < WORTH or len(set(found)) > 1:
        return False
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    if kinds and len(set(kinds)) > 1:
        return False
    layers = layers_of(model)[0]
    shapes = [[(name, one.shape, one.requires_grad) for name, one in layer.named_parameters()] for layer in layers]
    stacks = [shapes[start : start + found[0]] for start in range(0, len(shapes), found[0])]
    return len(shapes) == sum(found) and all(shape == stack[1] for stack in stacks for shape in stack[1:])
