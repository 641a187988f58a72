"""Activations computed again in the backward instead of kept, layer by layer (Chen 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from genwright.base.errors import RecipeError


def num_recomputed(choice: str | int, num_layers: int) -> int:
    """How many of a model's layers: "none", "full" or a number. Errors: RecipeError."""
    number = {"none": 0, "full": num_layers}.get(choice) if isinstance(choice, str) else choice
    if number is None or not 0 <= number <= num_layers:
        raise RecipeError(
            "adapt.recompute cannot be read for this model.", wanted=f'"none", "full" or 0 to {num_layers} layers', found=str(choice),
            do=f"set adapt.recompute = {min(num_layers, max(0, number))}" if number is not None else 'set adapt.recompute = "none"',
        )  # fmt: skip
    return number


def recompute_(layers: Sequence[nn.Module], choice: str | int) -> int:
    """Keep only the inputs of the lowest `choice` layers; each costs one more forward. Returns how many.

    The lowest, because backward reaches them last: by then the layers above have given back what they kept, so one
    layer's activations stand alone. Were the top recomputed, they would come on top of everything that is kept.
    """
    number = num_recomputed(choice, len(layers))
    for layer in layers[:number]:
        # The instance's forward, not a wrapping module: names stay, and FSDP's hooks stand around it.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return number
