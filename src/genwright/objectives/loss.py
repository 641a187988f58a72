"""What an objective returns: named sums with their counts, never a mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Term:
    """`total` is the sum over `count` things (both 0-d). The step divides by the whole step's count, over all ranks."""

    total: Tensor
    count: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Loss:
    """loss = sum over terms of weight * total / count_of_the_whole_step[name]."""

    terms: dict[str, Term] = field(default_factory=dict)


class Objective(Protocol):
    """A frozen dataclass whose fields are the constants of its equation."""

    rows: ClassVar[tuple[str, ...]]
    """The kinds of row it learns from."""

    couples_rows: ClassVar[bool]
    """Whether rows of one batch enter one term together; such an objective refuses gradient accumulation."""

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        ...
