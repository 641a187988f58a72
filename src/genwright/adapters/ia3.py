"""IA3: a learned factor for every key, value and inner activation; `peft`'s modules and files, our computation.

Legend: I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import IA3Config
from peft.tuners import ia3
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as INNER,
)
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGETS,
)
from torch import Tensor, nn

from genwright.adapters.wrapped import linear_names, save_adapter, wrapped
from genwright.base.errors import RecipeError


@dataclass(frozen=True)
class IA3:
    """k = l_k * (x W_k^T), v = l_v * (x W_v^T), y = (l_ff * h) W_down^T, only l is trained   (Liu 2022, arXiv 2205.05638, section 3.3).

    l starts at 1, so the adapted model starts as the base. On SmolLM2-135M it trains 57,600 weights: 30 layers of
    192 keys, 192 values and 1,536 inner activations. Which layers these are is `peft`'s table for the model's kind.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 2e-2
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = True

    outputs: tuple[str, ...] = ()
    """Layers whose outputs are scaled, by name, for a kind of model that `peft` has no table for. Empty: the table's."""

    inputs: tuple[str, ...] = ()
    """Layers whose inputs are scaled, beside `outputs`."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError for a kind of model that `peft` has no table for, naming the layers there are."""
        targets, inner = [*self.outputs, *self.inputs], list(self.inputs)
        kind, known = model.config.model_type, linear_names(model)
        if not targets:
            targets, inner = TARGETS.get(kind, []), INNER.get(kind, [])
        missing = [name for name in targets if name.rpartition(".")[2] not in known]
        if missing or not targets:
            raise RecipeError(
                f"adapt.ia3 names no layer of this model: {', '.join(missing)}."
                if missing
                else f"adapt.ia3 does not know which layers of a '{kind}' model are its keys, values and inner activations.",
                wanted=f"outputs and inputs among {', '.join(known)}",
                do='name them: [adapt.ia3] outputs = [...] inputs = [...], or use method = "lora"',
            )
        adapted = wrapped(model, IA3Config(target_modules=list(targets), feedforward_modules=list(inner)))
        use_scaled_forward_(adapted)
        return adapted

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s own folder."""
        save_adapter(model, folder)


def use_scaled_forward_(model: nn.Module) -> None:
    """Give every plain IA3 layer our forward; the modules, names and files stay `peft`'s."""
    module: Any
    for module in model.modules():
        if type(module) is ia3.Linear and type(module.get_base_layer()) is nn.Linear:
            module.__class__ = ScaledLinear


class ScaledLinear(ia3.Linear):
    """`peft`'s layer without its way through float32: l * v as v + (l - 1) * v, so that bfloat16 keeps what was learned.

    l itself rounded to bfloat16 would move in steps of 1/128 above 1.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map x [..., I] to [..., O]. Whatever is not one unmerged adapter is left to `peft`."""
        active = self.active_adapters
        if args or kwargs or self.disable_adapters or self.merged or len(active) != 1 or active[0] not in self.ia3_l:
            return super().forward(x, *args, **kwargs)
        more = (self.ia3_l[active[0]].flatten() - 1).to(x.dtype)
        if self.is_feedforward:
            return self.base_layer(torch.addcmul(x, x, more))
        y = self.base_layer(x)
        return torch.addcmul(y, y, more)
