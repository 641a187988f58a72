"""From a Recipe to what runs, in one visible order. The planner calls the same function on fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from genwright.adapters.base import train_, trainable
from genwright.engine.optim import adamw
from genwright.engine.recipe import Recipe
from genwright.models.attention import NAME
from genwright.models.surgery import cast_frozen_
from genwright.parallel.mesh import SINGLE, Placement
from genwright.parallel.shard import ALONE, Team, shard_
from genwright.precision.policy import resolve
from genwright.precision.scaling import LossScale, loss_scale


@dataclass(frozen=True)
class Built:
    """A recipe made ready: the model, its optimizer, and the objective in the recipe's precision."""

    model: Any
    optimizer: torch.optim.Optimizer
    objective: Callable[[Any, Any], Any]
    parameters: dict[str, nn.Parameter]
    """What is trained, by name; where it is split, this rank's piece of it."""
    team: Team = ALONE
    """This process among those that train it."""
    scaling: LossScale | None = None
    """Of the loss, where it is computed in float16."""


def build(recipe: Recipe, load: Callable[[torch.dtype, str], Any], place: Placement = SINGLE) -> Built:
    """`load(dtype, attention)` gives the base model with the recipe's head: real weights, or fake ones of the same shapes.

    `place` lays it over the ranks of the process group that stands.
    """
    policy = resolve(recipe.precision, place.device)
    torch.manual_seed(recipe.seed)  # a head that the files do not have starts at random
    # Masters are float32, so where weights of the base are trained they are loaded so; frozen ones are rounded after.
    model = load(torch.float32 if recipe.adapter.trains_base else policy.compute, NAME)
    model.config.use_cache = False
    # Adapt before the optimizer exists: it must see the weights that are trained, and only those.
    torch.manual_seed(recipe.seed)
    model = recipe.adapter.wrap(model)
    for name in ("value_head",) if recipe.objective.head == "value" else ():
        train_(next(module for path, module in model.named_modules() if path.rpartition(".")[2] == name))
    cast_frozen_(model, policy.compute)
    model.to(place.device)
    model.train()
    team = shard_(model, place)  # before the optimizer exists: it must see the pieces
    parameters = trainable(model)
    optimizer = adamw(parameters, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
    objective = policy.around(recipe.objective, trains_base=recipe.adapter.trains_base, device=place.device)
    return Built(model, optimizer, objective, parameters, team, loss_scale(policy.compute, place.device))
