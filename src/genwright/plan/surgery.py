"""What other frameworks put in place of a model's linear layers, as far as memory and work go: no numbers are computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genwright.plan.frameworks import Profile
from genwright.plan.setup import Setup

BITS_OF_BASE = {"int8": 8.0 + 32 / 4096, "int4": 4.0 + 20 / 128, "nf4": 4.5, "nf4-double": 4.127}
"""Bits a weight: codes and their constants. int8: one float32 a row (LLM.int8, arXiv 2208.07339); int4: 16 bits of scale and 4 of
zero point for 128 (GPTQ, arXiv 2210.17323); nf4: one float32 for 64, or 8 bits for 64 and a float32 for 256 of those (QLoRA)."""
KEEP_INPUT = ("nf4", "nf4-double", "int8")
"""Whose product keeps its input, though its weight is frozen."""
ROLES = (
    ("q", ("q_proj", "wq", "query", "q_lin", ".q", "to_q")),
    ("k", ("k_proj", "wk", "key", "k_lin", ".k")),
    ("v", ("v_proj", "wv", "value", "v_lin", ".v")),
    ("qkv", ("query_key_value", "c_attn", "qkv_proj", "wqkv", "qkv")),
    ("o", ("o_proj", "attn.c_proj", "attention.dense", "out_proj", "self_attn.dense", "self_attention.dense", ".o")),
    ("gate_up", ("gate_up_proj",)),
    ("gate", ("gate_proj", "wi_0", "w1")),
    ("up", ("up_proj", "c_fc", "fc1", "dense_h_to_4h", "wi_1", "w3", ".wi", "intermediate.dense")),
    ("down", ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "w2", ".wo", "output.dense")),
    ("head", ("lm_head", "embed_out", "score")),
)  # fmt: skip
"""Kind of a linear layer by the end of its name, across architectures."""


def role_of(name: str) -> str:
    """ "q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "head"; empty where the name says none."""
    return next((role for role, ends in ROLES if name.endswith(ends)), "")


def _wanted(role: str, targets: tuple[str, ...]) -> bool:
    if "all-linear" in targets:
        return bool(role) and role != "head"
    return (
        role in targets
        or (role == "qkv" and bool({"q", "k", "v", "qkv"} & {*targets}))
        or (role == "gate_up" and bool({"gate", "up"} & {*targets}))
    )


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
    """y = base(x) + drop(x) A B, as `peft` and its kin compute it."""

    def __init__(self, base: Any, inputs: int, outputs: int, rank: int, dropout: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.base, self.dropout = base, dropout
        self.lora_A = _adapter(rank, inputs, dtype)
        self.lora_B = _adapter(outputs, rank, dtype)

    @property
    def weight(self) -> Tensor:
        """The base's, for who asks."""
        return self.base.weight

    def forward(self, x_BTI: Tensor) -> Tensor:
        """[B, T, O]."""
        result = self.base(x_BTI)
        given = x_BTI if torch.is_autocast_enabled("cpu") else x_BTI.to(self.lora_A.dtype)
        given = _Drop.apply(given) if self.dropout else given
        update = F.linear(F.linear(given, self.lora_A), self.lora_B) * 2.0
        return result + update.to(result.dtype)


def mark_(tensor: Any, **marks: Any) -> Any:
    """The tensor, with attributes that say what it stands for."""
    for name, value in marks.items():
        setattr(tensor, name, value)
    return tensor


def _adapter(rows: int, columns: int, dtype: torch.dtype) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(rows, columns, dtype=dtype))
    return mark_(parameter, genwright_adapter=True)


class FusedQKV(nn.Module):
    """One product for queries, keys and values; each is a view of it. The three stand where the model's own did."""

    def __init__(
        self, parts: list[nn.Linear], rank: int, adapted: list[bool], dropout: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        first = parts[0]
        self.sizes = [part.out_features for part in parts]
        self.weight = nn.Parameter(
            first.weight.new_empty(sum(self.sizes), first.in_features), requires_grad=first.weight.requires_grad
        )
        if hasattr(first.weight, "genwright_base"):
            for name in ("genwright_base", "genwright_keeps"):
                setattr(self.weight, name, getattr(first.weight, name))
        self.quantized = isinstance(first, Dense)
        self.bias = (
            nn.Parameter(first.bias.new_empty(sum(self.sizes)), requires_grad=first.bias.requires_grad)
            if first.bias is not None
            else None
        )
        self.dropout = dropout
        if rank and any(adapted):
            width = sum(size for size, flag in zip(self.sizes, adapted, strict=True) if flag)
            self.lora_A = _adapter(rank * sum(adapted), first.in_features, dtype)
            self.lora_B = _adapter(width, rank, dtype)
        self.kept: list[Tensor] = []

    def part(self, number: int, x_BTI: Tensor) -> Tensor:
        """Queries (0), keys (1) or values (2); asked for in this order."""
        if number == 0:
            self.kept = list(self._all(x_BTI).split(self.sizes, -1))
        found = self.kept[number]
        if number == len(self.sizes) - 1:
            self.kept = []
        return found

    def _all(self, x_BTI: Tensor) -> Tensor:
        plain = (
            _Dequantized.apply(x_BTI, self.weight, self.bias)
            if self.quantized
            else F.linear(x_BTI, self.weight, self.bias)
        )
        if not hasattr(self, "lora_A"):
            return plain
        given = _Drop.apply(x_BTI) if self.dropout else x_BTI
        low = F.linear(given.to(self.lora_A.dtype), self.lora_A)[..., : self.lora_B.shape[1]]
        update = F.linear(low, self.lora_B) * 2.0
        return plain + F.pad(update, (0, sum(self.sizes) - update.shape[-1])).to(plain.dtype)


class _Part(nn.Module):
    def __init__(self, whole: FusedQKV, number: int) -> None:
        super().__init__()
        self.number = number
        if number == 0:
            self.whole = whole
        else:
            object.__setattr__(self, "whole", whole)

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self.whole.part(self.number, x_BTI)


class _Dequantized(torch.autograd.Function):
    """x W^T with W made dense for the product and dropped: once there, once back. bitsandbytes keeps x too (MatMul4Bit, ctx.tensors)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        if getattr(weight, "genwright_keeps", False):
            ctx.save_for_backward(x)
        dense = torch.empty_like(weight).copy_(weight.detach())
        return F.linear(x, dense, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        dense = torch.empty_like(ctx.weight).copy_(ctx.weight.detach())
        return gradients[0].to(dense.dtype) @ dense, None, None


class Dense(nn.Linear):
    """A frozen linear layer whose weight is kept in few bits."""

    def forward(self, x: Tensor) -> Tensor:
        """The product with the weight made dense."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        return _Dequantized.apply(x.to(dtype), self.weight, self.bias)


def quantize_(model: Any, base: str, keeps_input: bool) -> None:
    """Every linear layer but the head; what stands outside keeps the compute type."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and role_of(name) != "head":
            module.__class__ = Dense
            mark_(module.weight, genwright_base=base, genwright_keeps=keeps_input and base in KEEP_INPUT)


def adapt_(model: Any, setup: Setup, profile: Profile, dtype: torch.dtype) -> None:
    """Low-rank adapters where the setup wants them; one product for queries, keys and values where the framework has one."""
    low_rank = setup.adapter not in ("full", "llama-adapter", "llama-adapter-v2")
    targets = setup.targets if low_rank else ()
    if profile.fused_qkv:
        _fuse_qkv_(model, setup, profile, dtype, targets)
    if low_rank:
        adapted = [
            (name, module)
            for name, module in model.named_modules()
            if _is_linear(module) and _wanted(role_of(name), targets)
        ]
        for name, module in adapted:
            inputs, outputs = _sizes(module)
            _replace(model, name, LowRank(module, inputs, outputs, setup.rank, profile.dropout, dtype))
    if setup.trains_embeddings:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if module is not None:
                module.weight.requires_grad_(True)
    if profile.expand_keys:
        for module in model.modules():
            if "Attention" in type(module).__name__:
                module.genwright_expand = True
    if setup.adapter.startswith("llama-adapter"):
        _adaption_prompts_(model, setup, dtype)


def _is_linear(module: Any) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _sizes(module: Any) -> tuple[int, int]:
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (module.nx, module.nf)


def _replace(model: Any, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _fuse_qkv_(model: Any, setup: Setup, profile: Profile, dtype: torch.dtype, targets: tuple[str, ...]) -> None:
    for module in list(model.modules()):
        names = [name for name in ("q_proj", "k_proj", "v_proj") if isinstance(getattr(module, name, None), nn.Linear)]
        if len(names) == 3:
            parts = [getattr(module, name) for name in names]
            adapted = [_wanted(letter, targets) for letter in "qkv"]
            whole = FusedQKV(parts, setup.rank if targets else 0, adapted, profile.dropout, dtype)
            for number, name in enumerate(names):
                setattr(module, name, _Part(whole, number))


def _adaption_prompts_(model: Any, setup: Setup, dtype: torch.dtype) -> None:
    """LLaMA-Adapter (arXiv 2303.16199): ten learned positions a layer and a gate; v2 also a bias and a scale a linear layer."""
    from genwright.models.surgery import layers_of

    config = model.config.get_text_config()
    for number, layer in enumerate(layers_of(model)[0]):
        if number >= 1:
            _prompted_(layer, config, dtype)
        if setup.adapter.endswith("v2"):
            for name, module in list(layer.named_modules()):
                if _is_linear(module):
                    _replace(layer, name, _Scaled(module, dtype))


class _Scaled(nn.Module):
    """y = scale * (W x + bias), both learned   (LLaMA-Adapter V2, arXiv 2304.15010)."""

    def __init__(self, base: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.scale, self.shift = (nn.Parameter(torch.empty(_sizes(base)[1], dtype=dtype)) for _ in range(2))
        for parameter in (self.scale, self.shift):
            mark_(parameter, genwright_adapter=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (self.base(x) + self.shift)


def _prompted_(layer: Any, config: Any, dtype: torch.dtype) -> None:
    """Adds gate * softmax(q K^T) V over ten learned keys to what attention gives."""
    width = config.hidden_size
    layer.prompt, layer.gate = (
        nn.Parameter(torch.empty(size, dtype=dtype)) for size in ((10, width), (1, 1, config.num_attention_heads, 1))
    )
    layer.prompt.genwright_adapter = layer.gate.genwright_adapter = True
    attention = next(module for name, module in layer.named_children() if "attn" in name or "attention" in name)

    def add(_: Any, __: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        batch, length = hidden.shape[:2]
        heads = config.num_attention_heads
        query = hidden.view(batch, length, heads, -1).transpose(1, 2)
        keys = layer.prompt.view(1, 10, heads, -1).transpose(1, 2).expand(batch, -1, -1, -1).to(query.dtype)
        more = F.scaled_dot_product_attention(query, keys, keys).transpose(1, 2)
        hidden = hidden + (layer.gate.to(more.dtype) * more).reshape(hidden.shape)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    attention.register_forward_hook(add)


class _FusedNorm(torch.autograd.Function):
    """RMS norm in one kernel: keeps its input and a number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x).copy_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x).copy_(gradients[0]), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


def fuse_norms_(model: nn.Module) -> None:
    """Every RMS norm in one kernel."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "weight"):
            module.forward = lambda x, norm=module: _FusedNorm.apply(x, norm.weight)
