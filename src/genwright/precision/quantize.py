"""A frozen base in 8 or 4 bits: each linear layer keeps integers and their scales, and is dense only while it multiplies.

Rounding is torchao's, to the nearest, symmetric about zero; the bytes are ours, because torchao 0.18 keeps 4-bit weights
in 8 bits on a CPU and its tensors have no backward there. Backward makes the weights dense once more instead of keeping
them, and gives the input's gradient only: nothing here is trained.

Legend: O outputs and I inputs of a linear layer, G groups of inputs that share a scale, S tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from genwright.base.errors import MissingExtra, RecipeError

LARGEST_GROUP = 64
"""Inputs that share one 4-bit scale: 2 bytes of scale per 64 weights make 0.53 bytes a weight."""


class QuantizedLinear(nn.Linear):
    """y = x W^T + b with W = scale * codes, frozen. A plain linear layer to `peft`."""

    codes: Tensor
    scale: Tensor

    def __init__(
        self, codes: Tensor, scale: Tensor, bias: Tensor | None, *, in_features: int, dtype: torch.dtype
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dense_dtype = in_features, codes.shape[0], dtype
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W's shape, type and device, and no numbers: all NaN, at no cost. `peft` asks for it 22 times a layer.

        Whoever would compute with it sees that at once; `dense` has the numbers.
        """
        return self.codes.new_full((), float("nan"), dtype=self.dense_dtype).expand(self.out_features, self.in_features)

    def dense(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """W = scale * codes [O, I] in `dtype`, multiplied in float32."""
        whole_OI = unpacked(codes) if codes.dtype == torch.uint8 else codes
        grouped_OGI = whole_OI.view(self.out_features, self.scale.shape[1], -1).float() * self.scale.float()[:, :, None]
        return grouped_OGI.view(self.out_features, self.in_features).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., I] to [..., O]."""
        return FrozenProduct.apply(x, self)

    def extra_repr(self) -> str:
        """The sizes, and how many bits."""
        bits = 4 if self.codes.dtype == torch.uint8 else 8
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={bits}"


class FrozenProduct(torch.autograd.Function):
    """y = x W^T + b; dx = g W. W is dense in neither direction for longer than its product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        """Map x [..., I] to [..., O]."""
        ctx.layer = layer
        return nn.functional.linear(x, layer.dense(layer.codes, x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        """The input's gradient."""
        layer, g = ctx.layer, gradients[0]
        return (g @ layer.dense(layer.codes, g.dtype) if ctx.needs_input_grad[0] else None), None


def quantize_base_(model: nn.Module, base: str, *, keep: Collection[str] = ()) -> None:
    """Put `base` ("int8": one scale a row; "int4": one per group of inputs) in place of every linear layer but those in `keep`.

    Bytes a weight: 1 + 4 / I for int8, 0.5 + 2 / group for int4. Errors: RecipeError for another name, or for a layer
    whose inputs cannot be packed in pairs; MissingExtra without torchao.
    """
    if base not in ROUNDED:
        raise RecipeError(
            f"A base cannot be kept in '{base}'.", wanted='"int8", "int4" or "" (as it is)', found=base, do="choose one"
        )
    found = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear and name not in keep]
    for name, module in found:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, quantized(module, base, name))


def quantized(layer: nn.Linear, base: str, name: str = "layer") -> QuantizedLinear:
    """One linear layer in 8 or 4 bits. Errors: as `quantize_base_`."""
    weight_OI = layer.weight.detach()
    codes, scale_OG = ROUNDED[base](weight_OI, name)
    return QuantizedLinear(codes, scale_OG, layer.bias, in_features=layer.in_features, dtype=weight_OI.dtype)


def _rounded(weight_OI: Tensor, group: int, most: int, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(codes [O, I] int8 from -most - 1 to most, scale [O, G]), as torchao rounds."""
    try:
        primitives = importlib.import_module("torchao.quantization.quant_primitives")
    except ImportError:
        raise MissingExtra("torchao", "quant", "A base in 8 or 4 bits") from None
    bounds = {"quant_min": -most - 1, "quant_max": most}
    scale_OG, zero_OG = primitives.choose_qparams_affine(
        weight_OI, primitives.MappingType.SYMMETRIC, (1, group), torch.int8, **bounds, scale_dtype=scale_dtype,
        zero_point_dtype=torch.int8, keepdim=True, eps=torch.finfo(torch.float32).eps,
    )  # fmt: skip
    codes_OI = primitives.quantize_affine(weight_OI, (1, group), scale_OG, zero_OG, torch.int8, **bounds)
    return codes_OI, scale_OG


def _int8(weight_OI: Tensor, name: str) -> tuple[Tensor, Tensor]:
    return _rounded(weight_OI, weight_OI.shape[1], 127, torch.float32)


def _int4(weight_OI: Tensor, name: str) -> tuple[Tensor, Tensor]:
    group = next((size for size in (LARGEST_GROUP, 32, 16, 8, 4, 2) if weight_OI.shape[1] % size == 0), 0)
    if not group:
        raise RecipeError(
            f"{name} cannot be kept in 4 bits.", wanted="an even number of inputs", found=str(weight_OI.shape[1]), do='use base = "int8"'
        )  # fmt: skip
    codes_OI, scale_OG = _rounded(weight_OI, group, 7, torch.bfloat16)
    return packed(codes_OI), scale_OG


ROUNDED = {"int8": _int8, "int4": _int4}


def packed(codes_OI: Tensor) -> Tensor:
    """Codes from -8 to 7, two in a byte [O, I / 2]: the even inputs low, the odd ones high."""
    shifted = (codes_OI + 8).to(torch.uint8)
    return shifted[:, 0::2] | (shifted[:, 1::2] << 4)


def unpacked(bytes_OI: Tensor) -> Tensor:
    """The codes [O, I] of `packed`, int8."""
    pairs = torch.stack([bytes_OI & 15, bytes_OI >> 4], dim=-1)
    return pairs.flatten(1).to(torch.int8) - 8
