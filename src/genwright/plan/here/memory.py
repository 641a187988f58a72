"""When memory runs out after all: which of the planned peaks it was, and the two cheapest ways to need less.

A remedy is cheap when it changes neither the result nor the time; then come those that take time, then those that change
what is learned. What each saves is computed from the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from genwright.base.errors import OutOfMemory
from genwright.base.units import Bytes
from genwright.catalogue.parts import ADAPTERS
from genwright.engine.recipe import Recipe
from genwright.plan.here.verify import resident_bytes

Peak = Literal["train", "save", "resume", "evaluate", "merge"]
"""The five peaks of a plan, as in `train_peak_bytes`."""

SMALLEST_PACK = 256
"""Tokens of a microbatch below which halving it saves nothing worth having."""
WORDINGS = ("not enough memory", "can't allocate memory", "out of memory")
"""How libraries without an exception of their own say it."""
WHILE = {
    "train": "training", "save": "copying a checkpoint", "resume": "resuming from a checkpoint",
    "evaluate": "answering", "merge": "merging the adapter",
}  # fmt: skip


@contextmanager
def memory_is_an_error(peak: Peak, who: str, recipe: Recipe | None = None, *, trained_bytes: int = 0) -> Iterator[None]:
    """Turn every way in which memory is said to be over into OutOfMemory, with the peak and two remedies.

    `trained_bytes`: of the weights that are trained, where they are known.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_about_memory(error):
            raise
        raise OutOfMemory(
            f"{who} ran out of memory while {WHILE[peak]}: it is the plan's {peak} peak.",
            wanted=str(error).splitlines()[0] if str(error) else "",
            found=f"the process held {Bytes(resident_bytes())}",
            do="; or ".join(remedies(peak, recipe, trained_bytes=trained_bytes)[:2]),
        ) from error


def _is_about_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in WORDINGS)


def remedies(peak: Peak, recipe: Recipe | None, *, trained_bytes: int = 0) -> list[str]:
    """Every remedy for a peak, the cheapest first; always two."""
    by_peak = {
        "train": [_half_a_microbatch, _half_the_rank, _adapter_instead, _base_in_bytes],
        "save": [_half_the_rank, _adapter_instead],
        "resume": [_half_the_rank, _adapter_instead],
        "evaluate": [_shorter_answers, _fewer_examples],
        "merge": [_no_merge],
    }
    found = [text for remedy in by_peak[peak] if (text := remedy(recipe, trained_bytes))]
    return [*found, "free memory by closing other programs", "choose a smaller model: `genwright models list`"]


def _half_a_microbatch(recipe: Recipe | None, trained_bytes: int) -> str:
    """The step's rows stay the same, so its gradient does; where rows are compared with each other that would not hold."""
    if recipe is None or recipe.objective.couples_rows or recipe.pack_tokens < 2 * SMALLEST_PACK:
        return ""
    return f"adapt.pack_tokens = {recipe.pack_tokens // 2} (half the activations, the same result)"


def _half_the_rank(recipe: Recipe | None, trained_bytes: int) -> str:
    """Weights, gradients and two moments are float32: of half the rank, half of four times the weights."""
    rank = getattr(recipe.adapter, "rank", 0) if recipe else 0
    if recipe is None or rank < 2:
        return ""
    saved = f"{Bytes(2 * trained_bytes)} less, " if trained_bytes else ""
    return f"adapt.{_name(recipe)}.rank = {rank // 2} ({saved}a narrower update)"


def _adapter_instead(recipe: Recipe | None, trained_bytes: int) -> str:
    """Gradients and two moments, each as large as the weights, are hardly needed."""
    if recipe is None or not recipe.adapter.trains_base:
        return ""
    saved = f"{Bytes(3 * trained_bytes)} less, " if trained_bytes else ""
    return f'adapt.method = "lora" ({saved}a small update instead of every weight)'


def _base_in_bytes(recipe: Recipe | None, trained_bytes: int) -> str:
    if recipe is None or getattr(recipe.adapter, "base", None) != "":
        return ""
    return f'adapt.{_name(recipe)}.base = "int8" (a byte for each frozen weight, slower)'


def _shorter_answers(recipe: Recipe | None, trained_bytes: int) -> str:
    return "half of adapt.max_new_tokens (a shorter cache of keys and values)"


def _fewer_examples(recipe: Recipe | None, trained_bytes: int) -> str:
    return "half of adapt.examples (shorter prompts, if it is the rung few-shot)"


def _no_merge(recipe: Recipe | None, trained_bytes: int) -> str:
    return "integrate.merge = false (the adapter is handed over beside its base)"


def _name(recipe: Recipe) -> str:
    """The adapter's table in the project file."""
    names = [name for name in ADAPTERS if ADAPTERS[name] is type(recipe.adapter)]
    return names[0] if names else type(recipe.adapter).__name__.lower()
