"""Operations that fake tensors cannot answer: named with their module, stood in for where that is honest, else refused."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_leaves

from genwright.base.errors import RecipeError

UNTRACED = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
"""What fake tensors raise for a value, a shape or an operation that they do not know."""


def stand_in(operation: Any, args: Any, kwargs: Any) -> tuple[Any, str]:
    """(A result to go on with, what is left out). Errors: RecipeError for what has no plausible result.

    A number that is read is taken as 1, a search for what is not zero finds everything, and another operation with one result
    is taken to give a tensor like its first.
    """
    who = f"{operation} in {_module(sys._getframe())}"
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if operation is torch.ops.aten._local_scalar_dense.default:
        kind = bool if given[0].dtype is torch.bool else float if given[0].dtype.is_floating_point else int
        return kind(1), f"{who}: the number it reads is taken as 1"
    if operation is torch.ops.aten.nonzero.default:
        everything = given[0].new_empty((given[0].numel(), given[0].ndim), dtype=torch.long)
        return everything, f"{who}: it is taken to find everything"
    returns = operation._schema.returns
    if not given or len(returns) != 1 or str(returns[0].type) != "Tensor":
        raise RecipeError(
            f"{who} cannot be traced.", wanted="operations whose results' shapes follow from shapes", found=str(operation),
            do="plan a model of the same sizes without it, or register a fake kernel (torch.library.register_fake)",
        )  # fmt: skip
    return torch.empty_like(given[0]), f"{who}: its work; its result is taken to be as large as its first tensor"


def _module(frame: FrameType | None) -> str:
    """The kind of the innermost of the model's modules at work, from the calls above."""
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return type(owner).__name__
        frame = frame.f_back
    return "the loss or the optimizer"
