"""THE step. The same on real and on fake tensors: no `.item()`, no branch on a value, no sync with the host.

It imports nothing of ours: what it is given is all it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """Of one optimiser step, all 0-d tensors."""

    loss: Tensor
    """The sum of the terms."""
    terms: dict[str, Tensor]
    """weight * mean over the whole step, by name."""
    grad_norm: Tensor
    """Before clipping, over all ranks."""
    skipped: Tensor
    """1 when the gradient was not finite and no weight was changed, else 0."""


def train_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, objective: Callable[[Any, Any], Any], microbatches: Iterable[Any],
    *, max_norm: float, global_norm: Callable[[Sequence[Tensor]], Tensor], scaling: Any = None,
) -> StepReport:  # fmt: skip
    """One optimiser step: loss = sum over terms of weight * (sum over all microbatches of total) / counts[per].

    `counts` is the whole step's, over all ranks, and stands on every microbatch: each divides before its backward, so
    microbatches of unequal length equal one batch. Gradients are scaled to `max_norm` (0: left alone); a step whose
    gradient is not finite changes nothing (the optimizer's `found_inf`) and says so. `scaling` has the `scale` that goes
    backward with the loss where gradients are float16, and an `update_(skipped)`.
    """
    optimizer.zero_grad(set_to_none=True)
    means: dict[str, Tensor] = {}
    for batch in microbatches:
        terms = objective(model, batch).terms
        shares = {name: term.weight * term.total / batch.counts[term.per] for name, term in terms.items()}
        loss = torch.stack(list(shares.values())).sum()
        (loss * scaling.scale if scaling else loss).backward()
        means = {name: share.detach() + means.get(name, 0.0) for name, share in shares.items()}
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if scaling:
        torch._foreach_mul_(gradients, scaling.scale.reciprocal())
    grad_norm = global_norm(gradients)
    if max_norm:
        torch._foreach_mul_(gradients, torch.clamp(max_norm / (grad_norm + 1e-6), max=1.0))
    skipped = (~torch.isfinite(grad_norm)).float()
    optimizer.found_inf = skipped  # type: ignore[attr-defined]  # read by torch's fused optimizers
    optimizer.step()
    if scaling:
        scaling.update_(skipped)
    return StepReport(torch.stack(list(means.values())).sum(), means, grad_norm, skipped)
