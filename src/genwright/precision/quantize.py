"""A frozen base in 8 or 4 bits: each linear layer keeps integers and their scales, and is dense only while it multiplies.

Rounding is torchao's, to the nearest: 8 bits symmetric about zero, 4 bits between a group's smallest and largest
weight. The bytes are ours, because torchao 0.18 keeps 4-bit weights in 8 bits on a CPU and its tensors have no backward
there. Backward makes the weights dense once more instead of keeping them, and gives the input's gradient only: nothing
here is trained.

Legend: O outputs and I inputs of a linear layer, G groups of inputs that share a scale, S tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from genwright.base.errors import MissingExtra, RecipeError

LARGEST_GROUP = 32
"""Inputs that share one 4-bit scale and offset, of 2 bytes each: 0.63 bytes a weight. SmolLM2-135M's loss on command rows: 4.52 in
bfloat16, 4.49 so; 5.06 in groups of 64, and 5.65 in groups of 32 that are symmetric about zero."""


class QuantizedLinear(nn.Linear):
    """y = x W^T + b with W = scale * codes + offset, frozen. A plain linear layer to `peft`."""

    codes: Tensor
    scale: Tensor
    offset: Tensor | None

    def __init__(
        self,
        codes: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        bias: Tensor | None,
        *,
        in_features: int,
        dtype: torch.dtype,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dense_dtype = in_features, codes.shape[0], dtype
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W's shape, type and device, and no numbers: all NaN, at no cost. `peft` asks for it 22 times a layer.

        Whoever would compute with it sees that at once; `dense` has the numbers.
        """
        return self.codes.new_full((), float("nan"), dtype=self.dense_dtype).expand(self.out_features, self.in_features)

    def dense(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """W = scale * codes + offset [O, I] in `dtype`, computed in float32."""
        whole_OI = unpacked(codes) if codes.dtype == torch.uint8 else codes
        grouped_OGI = whole_OI.view(self.out_features, self.scale.shape[1], -1).float() * self.scale.float()[:, :, None]
        if self.offset is not None:
            grouped_OGI += self.offset.float()[:, :, None]
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
    """Put `base` in place of every linear layer but those in `keep`.

    "int8" has a scale for each row, 1 + 4 / I bytes a weight; "int4" a scale and an offset for each group of inputs,
    0.5 + 4 / group. Errors: RecipeError for another name, or for a layer whose inputs cannot be packed in pairs;
    MissingExtra without torchao.
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
    return QuantizedLinear(
        *ROUNDED[base](weight_OI, name), layer.bias, in_features=layer.in_features, dtype=weight_OI.dtype
    )


Rounded = tuple[Tensor, Tensor, Tensor | None]
"""Codes, their scale [O, G], and their offset [O, G] where they have one."""


def _int8(weight_OI: Tensor, _: str) -> Rounded:
    torchao, block = _primitives(), (1, weight_OI.shape[1])
    bounds = {"quant_min": -128, "quant_max": 127}
    scale_OG, zero_OG = torchao.choose_qparams_affine(
        weight_OI, torchao.MappingType.SYMMETRIC, block, torch.int8, **bounds, scale_dtype=torch.float32,
        zero_point_dtype=torch.int8, keepdim=True, eps=torch.finfo(torch.float32).eps,
    )  # fmt: skip
    return torchao.quantize_affine(weight_OI, block, scale_OG, zero_OG, torch.int8, **bounds), scale_OG, None


def _int4(weight_OI: Tensor, name: str) -> Rounded:
    """W between -8 * scale + offset and 7 * scale + offset: no code is lost where a group's weights lie to one side."""
    group = next((size for size in (LARGEST_GROUP, 16, 8, 4, 2) if weight_OI.shape[1] % size == 0), 0)
    if not group:
        raise RecipeError(
            f"{name} cannot be kept in 4 bits.", wanted="an even number of inputs", found=str(weight_OI.shape[1]), do='use base = "int8"'
        )  # fmt: skip
    torchao, block = _primitives(), (1, group)
    bounds = {"quant_min": 0, "quant_max": 15}
    scale_OG, offset_OG = torchao._choose_qparams_affine_tinygemm(
        weight_OI.float(), torchao.MappingType.ASYMMETRIC, block, torch.uint8, **bounds, eps=1e-6,
        scale_dtype=torch.bfloat16, zero_point_dtype=torch.bfloat16,
    )  # fmt: skip
    codes_OI = torchao._quantize_affine_tinygemm(
        weight_OI.float(), block, scale_OG.float(), offset_OG.float(), torch.uint8, **bounds
    )
    rows = weight_OI.shape[0]
    return packed(codes_OI), scale_OG.view(rows, -1), offset_OG.view(rows, -1)


def _primitives() -> Any:
    try:
        return importlib.import_module("torchao.quantization.quant_primitives")
    except ImportError:
        raise MissingExtra("torchao", "quant", "A base in 8 or 4 bits") from None


ROUNDED = {"int8": _int8, "int4": _int4}


def packed(codes_OI: Tensor) -> Tensor:
    """Codes from 0 to 15, uint8, two in a byte [O, I / 2]: the even inputs low, the odd ones high."""
    return codes_OI[:, 0::2] | (codes_OI[:, 1::2] << 4)


def unpacked(bytes_OI: Tensor) -> Tensor:
    """The codes of `packed` less 8 [O, I]: int8 from -8 to 7."""
    pairs = torch.stack([bytes_OI & 15, bytes_OI >> 4], dim=-1)
    return pairs.flatten(1).to(torch.int8) - 8
