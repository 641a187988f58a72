"""The one number that every rank must agree on before an update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Sqrt of the sum of squares of all gradients (0-d float32), over all ranks where they are sharded."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).float()
