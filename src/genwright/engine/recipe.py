"""The Recipe: objective x adapter x precision x data x duration, frozen. Everything "auto" was resolved before it exists."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from genwright.adapters.base import Adapter
from genwright.base.files import sha256_of_json
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.catalogue.tasks import task
from genwright.models.families import Head
from genwright.precision.policy import resolve


@dataclass(frozen=True)
class Rollouts:
    """How a model answers prompts to learn from its own answers."""

    answers: int
    """Of each prompt, in each round."""
    updates: int
    """Optimiser steps that learn from one round."""
    max_new_tokens: int
    """The longest answer."""
    reward: str
    """The function's name and its file's hash."""


@dataclass(frozen=True)
class Recipe:
    """What one training is. Two runs with equal recipes, rows and machine end in equal bytes."""

    objective: Any
    """An `objectives.loss.Objective`, with the constants of its equation."""
    adapter: Adapter
    precision: str
    """"fp32", "bf16" or "fp16"; never "auto"."""
    steps: int
    """Optimiser steps."""
    batch_size: int
    """Rows per optimiser step, over all microbatches and ranks."""
    learning_rate: float
    """The schedule's top."""
    pack_tokens: int = 2048
    """The most tokens of one microbatch; a longer single row has a microbatch of its own."""
    packing: bool = True
    """Lay rows end to end (no padding) instead of padding them to the longest."""
    schedule: str = "cosine"
    """A name of `engine.optim.SCHEDULES`."""
    warmup_fraction: float = 0.03
    """Share of the steps in which the rate rises from zero."""
    weight_decay: float = 0.0
    """AdamW's, on matrices only."""
    max_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    seed: int = 0
    """Of the adapter's start, the order of rows and dropout."""
    labels: tuple[str, ...] = ()
    """The classes of the data, where the objective's head has classes."""

    rollouts: Any = None
    """`Rollouts`, where the model learns from its own answers; else None."""

    teacher: str = ""
    """The second model, where one makes columns."""

    @property
    def head(self) -> Head:
        """What stands on the model's body."""
        return Head(self.objective.head, self.labels)

    def to_json(self) -> dict[str, Any]:
        """Names and constants, for records and for the hash."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts = {
            name: describe(values[name]) for name in ("objective", "adapter", "rollouts") if values[name] is not None
        }
        return values | parts

    def identity(self) -> str:
        """SHA-256 of the recipe: a checkpoint belongs to exactly one."""
        return sha256_of_json(self.to_json())


def describe(part: Any) -> dict[str, Any]:
    """A part as {"name": class, its constants...}."""
    return {"name": type(part).__name__, **dataclasses.asdict(part)}


def recipe_for(
    spec: Any, method: str, num_rows: int, *, family: str = "decoder", labels: tuple[str, ...] = (), reward: str = "",
    device: str = "cpu",
) -> Recipe:  # fmt: skip
    """The recipe of a project's method: every "auto" and 0 of the file becomes a value here, and is recorded.

    Errors: RecipeError where objective, precision or data do not go together.
    """
    adapt, objective = spec.adapt, objective_name(spec, family)
    adapter = ADAPTERS[method](**spec.methods.get(method, {}))
    return Recipe(
        objective=OBJECTIVES[objective](**spec.methods.get(objective, {})),
        adapter=adapter,
        precision=resolve(adapt.precision, device).name,
        steps=adapt.steps or max(1, math.ceil(adapt.epochs * num_rows / adapt.batch_size)),
        batch_size=adapt.batch_size,
        learning_rate=adapt.learning_rate or adapter.default_learning_rate,
        pack_tokens=adapt.pack_tokens,
        packing=adapt.packing,
        schedule=adapt.schedule,
        warmup_fraction=adapt.warmup_fraction,
        weight_decay=adapt.weight_decay,
        max_norm=adapt.max_norm,
        seed=spec.project.seed,
        labels=labels,
        rollouts=_rollouts(adapt, reward) if OBJECTIVES[objective].layout == "prompts" else None,
        teacher=adapt.teacher,
    )


def _rollouts(adapt: Any, reward: str) -> Rollouts:
    return Rollouts(adapt.answers, adapt.updates, adapt.max_new_tokens, reward)


def objective_name(spec: Any, family: str) -> str:
    """What a project minimises: as it says, else what its task is trained with on this family of models."""
    wanted = task(spec.scope.task)
    return str(spec.adapt.objective or wanted.objectives.get(family, wanted.objective))
