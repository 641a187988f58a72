"""MultiLoRA: several LoRA modules side by side, each with scales of its own, so that no few directions rule the update.

Computed as one LoRA of rank N*R whose B is scaled, so forward, backward, merging and files are LoRA's.

Legend: I inputs, O outputs of a linear layer, N parallel modules, R rank of each, M = N * R.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from genwright.adapters.lora import lora_model
from genwright.adapters.wrapped import ADAPTER_NAME, checked_targets, save_adapter


@dataclass(frozen=True)
class MultiLoRA:
    """y = x W^T + (alpha / rank) sum_n s_n * ((x A_n^T) B_n^T), s_n one scale an output   (Wang 2023, arXiv 2311.11501, section 4).

    A and B both start Kaiming-uniform and the scales at zero, so the adapted model starts as the base and all modules
    learn at once. Trains parallel * (rank * (I + O) + O) weights a layer. Saved as one LoRA of rank parallel * rank.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 3e-3
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = True

    parallel: int = 4
    """N, how many modules stand side by side."""

    rank: int = 4
    """R, the width of each."""

    alpha: float = 8.0
    """Each update is scaled by alpha / rank."""

    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, or "all-linear": every one but the head."""

    base: Literal["", "int8", "int4"] = ""
    """Keep the frozen base in "int8" (1 byte a weight) or "int4" (0.63) while training. Empty: in the compute type."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError when a target matches no layer, naming the layers there are."""
        targets = checked_targets(model, self.targets, "adapt.multilora.targets")
        # alpha N / (N R) = alpha / R: one wide LoRA's factor is each module's.
        config = LoraConfig(r=self.parallel * self.rank, lora_alpha=self.parallel * self.alpha, target_modules=targets)
        adapted = lora_model(model, config, self.base)
        for module in list(adapted.modules()):
            if isinstance(module, LoraLayer) and ADAPTER_NAME in module.lora_B:
                module.lora_B[ADAPTER_NAME] = ScaledUp(module.lora_B[ADAPTER_NAME], self.parallel)
        return adapted

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s folder of one LoRA, the scales folded into its B."""
        folded = {
            f"{name}.weight": module.weight.detach()
            for name, module in model.named_modules()
            if type(module) is ScaledUp
        }
        own = {
            f"{name}.{part}"
            for name, module in model.named_modules()
            if type(module) is ScaledUp
            for part in ("side_OM", "scale_ON")
        }
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in own}
        save_adapter(model, folder, state=state | folded)


class ScaledUp(nn.Module):
    """B [O, M] of N modules side by side, each scaled by output. To `peft` and to our forward it is a LoRA's B."""

    bias = None

    def __init__(self, up: nn.Linear, parallel: int) -> None:
        super().__init__()
        bound = (up.in_features // parallel) ** -0.5  # Kaiming-uniform over R inputs with a = sqrt(5), as A's
        self.side_OM = nn.Parameter(torch.empty_like(up.weight).uniform_(-bound, bound))
        self.scale_ON = nn.Parameter(torch.zeros_like(up.weight[:, :parallel]))

    @property
    def weight(self) -> Tensor:
        """B with the scales folded in [O, M]; gradients reach both."""
        return self.side_OM * self.scale_ON.repeat_interleave(self.side_OM.shape[1] // self.scale_ON.shape[1], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., M] to [..., O]."""
        return nn.functional.linear(x, self.weight)
