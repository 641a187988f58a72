"""What an objective returns: named sums with their counts, never a mean; and the sums over sequences that many need.

Legend: N labels of a microbatch, D its sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Term:
    """`total` is the sum over `count` things (both 0-d). The step divides by the whole step's count, over all ranks."""

    total: Tensor
    count: Tensor
    weight: float = 1.0
    per: str = "tokens"
    """Which of the batch's counts the step divides by: "tokens", "documents", "pairs", or another that the layout counts."""


@dataclass(frozen=True)
class Loss:
    """loss = sum over terms of weight * total / count_of_the_whole_step[per]."""

    terms: dict[str, Term] = field(default_factory=dict)


class Objective(Protocol):
    """A frozen dataclass whose fields are the constants of its equation."""

    rows: ClassVar[tuple[str, ...]]
    """The kinds of row it learns from."""

    couples_rows: ClassVar[bool]
    """Whether rows of one batch enter one term together; such an objective refuses gradient accumulation."""

    layout: ClassVar[str]
    """How rows become tokens and labels: a name of the catalogue's LAYOUTS."""

    head: ClassVar[str]
    """What stands on the model's body: "language", "value" (language and a value), "classes", "tags", "score", "embedding"."""

    columns: ClassVar[tuple[str, ...]]
    """What a second model must say of each row before it is learned from, such as "reference_D"."""

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        ...


def per_document(values_N: Tensor, batch: Any) -> Tensor:
    """The sum of a value over the labels of each sequence: [D]."""
    return values_N.new_zeros(batch.num_documents).index_add(0, batch.document_N, values_N)


def tokens_per_document(batch: Any) -> Tensor:
    """How many labels each sequence has: [D], float32."""
    return per_document(torch.ones(batch.document_N.shape, device=batch.document_N.device), batch)


def number(value: float, like: Tensor) -> Tensor:
    """A 0-d float32 beside `like`, for a term's count."""
    return torch.full((), float(value), device=like.device)
