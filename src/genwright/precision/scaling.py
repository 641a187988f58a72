"""Loss scaling for float16: its smallest normal number is 6e-5, so gradients are computed a few thousand times larger.

Tensors only, so that a step neither waits for the host nor branches on a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""So many good steps after another, and the scale is doubled."""


@dataclass(frozen=True)
class LossScale:
    """The gradient of scale * loss, divided by scale before anyone looks at it   (Micikevicius 2017, arXiv 1710.03740, section 3.2).

    A step with a gradient that is not finite halves the scale, and GROWTH_INTERVAL steps without one double it. Scales are
    powers of two, so multiplying and dividing by them rounds nothing.
    """

    scale: Tensor
    """0-d float32, changed in place."""
    good_steps: Tensor
    """0-d float32: how many since the scale last changed."""

    def update_(self, skipped: Tensor) -> None:
        """After a step; `skipped` (0-d) is 1 where its gradient was not finite, else 0."""
        good = (self.good_steps + 1) * (1 - skipped)
        grown = (good >= GROWTH_INTERVAL).to(good.dtype)
        self.scale.mul_((1 - 0.5 * skipped) * (1 + grown))
        self.good_steps.copy_(good * (1 - grown))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {"scale": self.scale, "good_steps": self.good_steps}


def loss_scale(compute: torch.dtype, device: str = "cpu") -> LossScale | None:
    """The scale a run begins with, where its products are float16; bfloat16 has float32's range and needs none."""
    if compute != torch.float16:
        return None
    return LossScale(torch.tensor(FIRST_SCALE, device=device), torch.tensor(0.0, device=device))
