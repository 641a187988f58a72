"""What a training learns from besides its rows: a second model's columns, its own answers and what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genwright.base.errors import RecipeError
from genwright.data.layouts import Feed
from genwright.engine.build import Built
from genwright.engine.recipe import Recipe
from genwright.engine.rollouts import Rounds, Worth
from genwright.models.attention import NAME
from genwright.models.load import load_model


@dataclass(frozen=True)
class Answerer:
    """A tokenizer and a worth: (number of the training row, the answer's tokens) to a reward."""

    tokenizer: Any
    worth: Worth


def no_second_model() -> Any:
    """Where no second model was named. Errors: RecipeError."""
    raise RecipeError(
        "This objective learns from a second model.", wanted="adapt.teacher", do="name a model in adapt.teacher"
    )


def rounds_of(answering: Answerer | None, recipe: Recipe, model: Path, feed: Feed, built: Built) -> Rounds | None:
    """Rollouts, where the objective learns from them. A reference that is no switched-off adapter is a model of its own."""
    if answering is None:
        return None
    frozen = None
    if "reference_N" in recipe.objective.columns and not hasattr(built.model, "disable_adapter"):
        # In the masters' type and under the same autocast: the first KL is then exactly 0.
        frozen = load_model(model, dtype=torch.float32, attention=NAME).to(feed.device)
    return Rounds(built, recipe, feed, answering.tokenizer, answering.worth, frozen)


LoadSecond = Callable[[], Any]
