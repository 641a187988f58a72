"""Low-rank adapters and fused products as frameworks compute them, as far as memory and work go: no numbers are computed.

Legend: B batch, T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mark_(tensor: Any, **marks: Any) -> Any:
    """The tensor, with attributes that say what it stands for."""
    for name, value in marks.items():
        setattr(tensor, name, value)
    return tensor


def adapter_parameter(*sizes: int, dtype: torch.dtype) -> nn.Parameter:
    """A weight of an adapter: trained, and counted as one."""
    return mark_(nn.Parameter(torch.empty(*sizes, dtype=dtype)), genwright_adapter=True)


class _Drop(torch.autograd.Function):
    """Dropout in one kernel: keeps a byte for each element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(torch.empty_like(x, dtype=torch.bool))
        return torch.empty_like(x).copy_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0]


class LowRank(nn.Module):
    """y = base(x) + drop(x) A B, as `peft` and its kin compute it.

    Where only some of a fused product's outputs are adapted, the update is copied into zeros: LitGPT's `LoRAQKVLinear.zero_pad`.
    torch's `index_copy` keeps what it copies for its gradient's shape (derivatives.yaml: `expand_as(source)`).
    """

    def __init__(
        self,
        base: Any,
        sizes: tuple[int, int],
        rank: int,
        dropout: float,
        dtype: torch.dtype,
        parts: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        inputs, self.outputs = sizes
        self.base, self.dropout = base, dropout
        self.width = sum(parts) or self.outputs
        self.lora_A = adapter_parameter(rank * max(1, len(parts)), inputs, dtype=dtype)
        self.lora_B = adapter_parameter(self.width, rank, dtype=dtype)

    @property
    def weight(self) -> Tensor:
        """The base's, for who asks."""
        return self.base.weight

    def forward(self, x_BTI: Tensor) -> Tensor:
        """[B, T, O]."""
        result = self.base(x_BTI)
        given = x_BTI if torch.is_autocast_enabled("cpu") else x_BTI.to(self.lora_A.dtype)
        given = _Drop.apply(given) if self.dropout else given
        update = F.linear(F.linear(given, self.lora_A)[..., : self.lora_B.shape[1]], self.lora_B)
        if self.width < self.outputs:
            update = self._padded(update)
        return result + (update * 2.0).to(result.dtype)

    def _padded(self, update: Tensor) -> Tensor:
        zeros = update.new_zeros(update.shape[:-1].numel(), self.outputs)
        places = torch.zeros(self.width, dtype=torch.long)
        return zeros.index_copy(1, places, update.flatten(0, -2)).view(*update.shape[:-1], self.outputs)


class FusedQKV(nn.Module):
    """One product for queries, keys and values; each is a view of it. Three parts of it stand where the model's own did."""

    def __init__(self, parts: list[nn.Linear]) -> None:
        super().__init__()
        first = parts[0]
        self.sizes = [part.out_features for part in parts]
        self.qkv = nn.Linear(first.in_features, sum(self.sizes), bias=first.bias is not None, dtype=first.weight.dtype)
        self.qkv.requires_grad_(first.weight.requires_grad)
        self.qkv.__class__ = first.__class__
        for name in ("genwright_base", "genwright_keeps", "genwright_half"):
            if hasattr(first.weight, name):
                setattr(self.qkv.weight, name, getattr(first.weight, name))
        self.kept: list[Tensor] = []

    def part(self, number: int, x_BTI: Tensor) -> Tensor:
        """Queries (0), keys (1) or values (2); asked for in this order."""
        if number == 0:
            self.kept = list(self.qkv(x_BTI).split(self.sizes, -1))
        found = self.kept[number]
        if number == len(self.sizes) - 1:
            self.kept = []
        return found


class Part(nn.Module):
    """Where the model had a product of its own."""

    def __init__(self, whole: FusedQKV, number: int) -> None:
        super().__init__()
        self.number = number
        if number == 0:
            self.whole = whole
        else:
            object.__setattr__(self, "whole", whole)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Its part of the whole product."""
        return self.whole.part(self.number, x_BTI)


class Scaled(nn.Module):
    """y = scale * (W x + bias), both learned   (LLaMA-Adapter V2, arXiv 2304.15010)."""

    def __init__(self, base: Any, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.scale, self.shift = (adapter_parameter(outputs, dtype=dtype) for _ in range(2))

    @property
    def weight(self) -> Tensor:
        """The base's, for who asks."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, O]."""
        return self.scale * (self.base(x) + self.shift)
