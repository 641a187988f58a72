"""The one number that every rank must agree on before an update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Sqrt of the sum of squares of all gradients (0-d float32), over all ranks where they are sharded.

    Gradients that are whole on every rank count once, those in pieces all their pieces once.
    """
    groups: dict[object, list[Tensor]] = {}
    for gradient in gradients:
        key = (gradient.device_mesh, gradient.placements) if isinstance(gradient, DTensor) else None
        groups.setdefault(key, []).append(gradient)
    norms = [_norm(group) for group in groups.values()]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).float()
