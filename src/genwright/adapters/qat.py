"""Quantisation-aware training: every weight is trained while linear layers multiply by what 4 bits would say of theirs.

The rounding is `precision.quantize`'s, anew in every forward, so what is trained is what a base kept in those bits computes. There is no
such training for 8 bits: rounding to those after training costs next to nothing (docs/precision.md).

Legend: S tokens, I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genwright.adapters.base import save_model, train_
from genwright.adapters.wrapped import heads_of
from genwright.precision.quantize import QuantizedLinear, quantized

BASE = "int4"


@dataclass(frozen=True)
class QAT:
    """y = x Q(W)^T + b with Q(W) the weights in 4 bits; dL/dW = (dL/dy)^T x, as if Q were not there.

    Jacob 2017, arXiv 1712.05877; the gradient is the straight-through estimator (Bengio 2013, arXiv 1308.3432). Heads,
    embeddings and norms are trained as they are. Only weights are rounded: activations are not.
    """

    form: ClassVar[str] = "model"
    default_learning_rate: ClassVar[float] = 5e-5
    trains_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False

    def wrap(self, model: Any) -> nn.Module:
        """All weights. Errors: RecipeError for a layer that cannot be packed; MissingExtra without torchao."""
        train_(model)
        heads = heads_of(model)
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear and name not in heads:
                quantized(_one_row_of(module), BASE, name)  # refused here, before anything is trained
                module.__class__ = RoundedLinear
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A `transformers` folder whose linear weights are Q(W), in float32: rounding them again changes nothing."""
        with rounded_weights(model):
            save_model(model, folder)


class RoundedLinear(nn.Linear):
    """A linear layer with float32 masters that multiplies by their rounded values."""

    def integers(self) -> QuantizedLinear:
        """The layer that it is meant to become."""
        return quantized(self, BASE)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., I] to [..., O]."""
        return StraightThrough.apply(x, self.weight, self.bias, self)


class StraightThrough(torch.autograd.Function):
    """y = x Q(W)^T + b; with g = dL/dy: dx = g Q(W), dW = g^T x, db = sum of g. Keeps x and the integers of Q(W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, layer: RoundedLinear) -> Tensor:
        """Map x [..., I] to [..., O], in autocast's type where it is on."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x_SI, integers = x.reshape(-1, x.shape[-1]).to(dtype), layer.integers()
        ctx.save_for_backward(x_SI)
        ctx.integers, ctx.shape, ctx.types = integers, x.shape, (x.dtype, weight_OI.dtype)
        y_SO = nn.functional.linear(
            x_SI, integers.dense(integers.codes, dtype), None if bias is None else bias.to(dtype)
        )
        return y_SO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        """Gradients of x, W and b."""
        (x_SI,), (x_type, master) = ctx.saved_tensors, ctx.types
        g_SO, grad_x = gradients[0].reshape(-1, gradients[0].shape[-1]), None
        if ctx.needs_input_grad[0]:
            dense_OI = ctx.integers.dense(ctx.integers.codes, g_SO.dtype)
            grad_x = (g_SO @ dense_OI).to(x_type).view(ctx.shape)
        grad_bias = g_SO.sum(0, dtype=master) if ctx.needs_input_grad[2] else None
        return grad_x, (g_SO.T @ x_SI).to(master), grad_bias, None


@contextmanager
def rounded_weights(model: nn.Module) -> Iterator[None]:
    """The model with Q(W) in place of every master; they are put back after."""
    layers = [module for module in model.modules() if isinstance(module, RoundedLinear)]
    masters = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            integers = layer.integers()
            layer.weight.data = integers.dense(integers.codes, layer.weight.dtype)
        yield
    finally:
        for layer, master in zip(layers, masters):
            layer.weight.data = master


def _one_row_of(layer: nn.Linear) -> nn.Linear:
    """Enough of a layer to see whether it can be rounded."""
    row = nn.Linear(layer.in_features, 1, bias=False, device=layer.weight.device)
    row.weight.data = layer.weight.data[:1]
    return row
