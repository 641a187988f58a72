"""The rungs that exist: each says in what form its solution stands, what trains it, and what is searched on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genwright.catalogue.parts import ADAPTERS


@dataclass(frozen=True)
class Made:
    """`form` is "prompt" (nothing is trained), "adapter" or "model"."""

    form: str
    examples: int = 0
    """How many examples the prompt shows; the most, where their number is searched."""
    method: str = ""
    """The training method; empty where nothing is trained."""
    search: str = ""
    """What is chosen by measurement first: "prompt" (examples, instruction, order), "lora" (rank and rate), or nothing."""
    first: str = ""
    """What comes before the training: "reading" of raw text, or "pairs" of right and wrong answers; mostly nothing."""


MOST_EXAMPLES = 8
"""The most that a search of prompts shows."""


def zero_shot(spec: Any, name: str) -> Made:
    """The model as it is, with the row's own prompt."""
    return Made("prompt")


def few_shot(spec: Any, name: str) -> Made:
    """The model as it is, shown the training rows nearest to each query; "auto" measures how many."""
    if spec.adapt.examples == "auto":
        return Made("prompt", MOST_EXAMPLES, search="prompt")
    return Made("prompt", spec.adapt.examples)


def prompt_search(spec: Any, name: str) -> Made:
    """The model as it is, with the instruction, the number of examples and their order that measure best."""
    return Made("prompt", MOST_EXAMPLES, search="prompt")


def trained(spec: Any, name: str) -> Made:
    """The rung of a training method: its form is its adapter's."""
    return Made(ADAPTERS[name].form, method=name)


def lora_search(spec: Any, name: str) -> Made:
    """LoRA whose rank and learning rate are chosen by successive halving."""
    return Made("adapter", method="lora", search="lora")


def pre_training(spec: Any, name: str) -> Made:
    """The model reads on, the project's raw text with all its weights, before all of them are adapted."""
    return Made("model", method="full", first="reading")


def preference(spec: Any, name: str) -> Made:
    """DPO with LoRA from the best rung so far: the training rows' answers against its own wrong ones; folded into the model."""
    return Made("model", method="lora", first="pairs")
