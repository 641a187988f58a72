"""Low-rank adaptation through `peft`: its modules, its configuration, its files; our computation where it is faster.

Legend: S tokens, I inputs, O outputs of a linear layer, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn

from genwright.adapters.wrapped import checked_targets, heads_of, save_adapter, wrapped
from genwright.base.errors import RecipeError
from genwright.precision.quantize import QuantizedLinear, quantize_base_


@dataclass(frozen=True)
class LoRA:
    """y = x W^T + (alpha / rank) (x A^T) B^T, only A and B are trained   (Hu 2021, arXiv 2106.09685, eq. 3).

    A starts Kaiming-uniform, B at zero, so the adapted model starts as the base. On SmolLM2-135M, rank 16 on all linear
    layers trains 4,884,480 weights: the sum over layers of rank * (inputs + outputs).
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 5e-4
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = True

    rank: int = 16
    """R, the width of the update."""

    alpha: float = 32.0
    """The update is scaled by alpha / rank."""

    dropout: float = 0.0
    """Chance to drop an input of A while training; above zero `peft`'s own, slower computation is used."""

    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, or "all-linear": every one but the head."""

    base: Literal["", "int8", "int4"] = ""
    """Keep the frozen base in "int8" (1 byte a weight) or "int4" (0.63) while training. Empty: in the compute type."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError when a target matches no layer, naming the layers there are."""
        targets = checked_targets(model, self.targets, "adapt.lora.targets")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets)
        return lora_model(model, config, self.base)

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s own folder."""
        save_adapter(model, folder)


@dataclass(frozen=True)
class RsLoRA:
    """y = x W^T + (alpha / sqrt(rank)) (x A^T) B^T: the step of a wide update does not shrink with its rank.

    Kalajdzievski 2023, arXiv 2312.03732, eq. 4. At rank 64 and alpha 16 the factor is 2, as in `lora`'s defaults.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 5e-4
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = True

    rank: int = 64
    """R, the width of the update: worth its name where it is large."""

    alpha: float = 16.0
    """The update is scaled by alpha / sqrt(rank)."""

    dropout: float = 0.0
    """Chance to drop an input of A while training; above zero `peft`'s own, slower computation is used."""

    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, or "all-linear": every one but the head."""

    base: Literal["", "int8", "int4"] = ""
    """Keep the frozen base in "int8" (1 byte a weight) or "int4" (0.63) while training. Empty: in the compute type."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError when a target matches no layer, naming the layers there are."""
        targets = checked_targets(model, self.targets, "adapt.rslora.targets")
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, use_rslora=True
        )
        return lora_model(model, config, self.base)

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s own folder."""
        save_adapter(model, folder)


@dataclass(frozen=True)
class DoRA:
    """W' = m (W + s B A) / |W + s B A|, each output's length m and its direction trained apart   (Liu 2024, arXiv 2402.09353, eq. 5).

    m starts as |W|, B at zero. `peft`'s own computation: the lengths of all rows are taken anew in every step. On
    SmolLM2-135M rank 16 trains 5,040,000 weights: LoRA's, and one more for each output.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 5e-4
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = True

    rank: int = 16
    """R, the width of the update of the direction."""

    alpha: float = 32.0
    """The update is scaled by alpha / rank."""

    dropout: float = 0.0
    """Chance to drop an input of A while training."""

    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, or "all-linear": every one but the head."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError when a target matches no layer, naming the layers there are."""
        targets = checked_targets(model, self.targets, "adapt.dora.targets")
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, use_dora=True
        )
        return lora_model(model, config)

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s own folder."""
        save_adapter(model, folder)


def lora_model(model: Any, config: LoraConfig, base: str = "") -> Any:
    """`peft`'s LoRA model with our forward, over a base in 8 or 4 bits where one is named.

    Quantise before LoRA: LoRA must wrap the layer that will run. Heads stay as they are. Errors: RecipeError for a rank or
    dropout that is none.
    """
    if config.r < 1 or not 0 <= config.lora_dropout < 1:
        raise RecipeError(
            "This is no low-rank update.", wanted="rank >= 1 and 0 <= dropout < 1",
            found=f"rank {config.r}, dropout {config.lora_dropout:g}", do="correct the settings of the method",
        )  # fmt: skip
    if base:
        quantize_base_(model, base, keep=heads_of(model))
    adapted = wrapped(model, config)
    use_fused_forward_(adapted)
    return adapted


def use_fused_forward_(model: nn.Module) -> int:
    """Give every plain LoRA layer our forward; the modules, names and files stay `peft`'s. Returns how many changed."""
    changed = 0
    module: Any
    for module in model.modules():
        if type(module) is lora.Linear and type(module.get_base_layer()) in (nn.Linear, QuantizedLinear):
            module.__class__ = FusedLinear
            changed += 1
    return changed


class FusedLinear(lora.Linear):
    """`peft`'s LoRA layer with the forward and backward written as one function: 1.4 times as fast in bf16 on a CPU."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map x [..., I] to [..., O]. Whatever is not one plain, unmerged, dropout-free adapter is left to `peft`."""
        if args or kwargs or not self._is_plain():
            return super().forward(x, *args, **kwargs)
        base, name = self.get_base_layer(), self.active_adapters[0]
        if not torch.is_grad_enabled():
            a_RI, b_OR = self.lora_A[name].weight.to(x.dtype), self.lora_B[name].weight.to(x.dtype)
            update = torch.nn.functional.linear(torch.nn.functional.linear(x, a_RI), b_OR)
            return base(x).add_(update, alpha=self.scaling[name])
        weight, dense = (base.codes, base.dense) if isinstance(base, QuantizedLinear) else (base.weight, None)
        return LoRAFunction.apply(
            x, weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name], dense
        )  # fmt: skip

    def _is_plain(self) -> bool:
        active = self.active_adapters
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] not in self.lora_A:
            return False
        name = active[0]
        dropout = self.lora_dropout[name]
        drops = self.training and not isinstance(dropout, nn.Identity)
        return (
            name not in self.lora_variant
            and not drops
            and self.lora_B[name].bias is None
            and not any(parameter.requires_grad for parameter in self.get_base_layer().parameters())
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold the update into W. Errors: RecipeError where W is kept in 8 or 4 bits: it would be lost in rounding."""
        if isinstance(self.get_base_layer(), QuantizedLinear):
            raise RecipeError(
                "An adapter is not merged into a base of 8 or 4 bits: the update would be lost in the rounding.",
                do="merge it into the base as it was published",
            )
        super().merge(safe_merge=safe_merge, adapter_names=adapter_names)


Dense = Callable[[Tensor, torch.dtype], Tensor]


class LoRAFunction(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W frozen; A and B are float32 masters, computed in x's type.

    Backward, with g = dL/dy: u = s g B; dB = s g^T (x A^T); dA = u^T x; dx = g W + u A. Saves x and x A^T only. Where W is
    kept in integers, `dense` makes it of them, once each way.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float, dense: Dense | None = None,
    ) -> Tensor:  # fmt: skip
        """Map x [..., I] to [..., O] with W [O, I], A [R, I], B [O, R]."""
        x_SI = x.reshape(-1, x.shape[-1])
        a_RI, b_OR = a_RI.to(x.dtype), b_OR.to(x.dtype)
        xa_SR = x_SI @ a_RI.T
        dense_OI = weight_OI if dense is None else dense(weight_OI, x.dtype)
        y_SO = torch.nn.functional.linear(x_SI, dense_OI, bias).addmm_(xa_SR, b_OR.T, alpha=scale)
        ctx.save_for_backward(x_SI, xa_SR, weight_OI, a_RI, b_OR)
        ctx.scale, ctx.shape, ctx.dense = scale, x.shape, dense
        return y_SO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None, None]:
        """Gradients of x, A and B; W and its bias are frozen."""
        x_SI, xa_SR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        g_SO = gradients[0].reshape(-1, gradients[0].shape[-1])
        u_SR = (g_SO @ b_OR).mul_(ctx.scale)
        grad_b = (g_SO.T @ xa_SR).float().mul_(ctx.scale)
        grad_a = (u_SR.T @ x_SI).float()
        grad_x = None
        if ctx.needs_input_grad[0]:
            dense_OI = weight_OI if ctx.dense is None else ctx.dense(weight_OI, g_SO.dtype)
            grad_x = (g_SO @ dense_OI).addmm_(u_SR, a_RI).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None, None
