"""The rungs that exist: each says in what form its solution stands and how many examples its prompt shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genwright.catalogue.parts import ADAPTERS


@dataclass(frozen=True)
class Made:
    """`form` is "prompt" (nothing is trained), "adapter" or "model"."""

    form: str
    examples: int = 0


def zero_shot(spec: Any, name: str) -> Made:
    """The model as it is, with the row's own prompt."""
    return Made("prompt")


def few_shot(spec: Any, name: str) -> Made:
    """The model as it is, shown the training rows nearest to each query."""
    return Made("prompt", spec.adapt.examples)


def trained(spec: Any, name: str) -> Made:
    """The rung of a training method: its form is its adapter's."""
    return Made(ADAPTERS[name].form)
