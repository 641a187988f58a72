"""What other frameworks put in place of a model's linear layers, as far as memory and work go: no numbers are computed."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genwright.models.surgery import layers_of
from genwright.plan.published.profile import Profile
from genwright.plan.traced.adapters import is_wrapped, wrap_
from genwright.plan.traced.low_rank import FusedQKV, LowRank, Part, Scaled, adapter_parameter, mark_
from genwright.plan.traced.recorder import Recorder
from genwright.plan.traced.setup import ELSEWHERE, LOW_RANK, Setup

BITS_OF_BASE = {"int8": 8.0 + 32 / 4096, "int4": 4.0 + 20 / 128, "nf4": 4.5, "nf4-double": 4.127}
"""Bits a weight: codes and their constants. int8: one float32 a row (LLM.int8, arXiv 2208.07339); int4: 16 bits of scale and 4 of
zero point for 128 (GPTQ, arXiv 2210.17323); nf4: one float32 for 64, or 8 bits for 64 and a float32 for 256 of those (QLoRA)."""
KEEP_INPUT = ("nf4", "nf4-double", "int8")
"""Whose product keeps its input, though its weight is frozen."""
ROLES = (
    ("qkv", ("query_key_value", "c_attn", "qkv_proj", "wqkv", "qkv")),
    ("q", ("q_proj", "wq", "query", "q_lin", ".q", "to_q")),
    ("k", ("k_proj", "wk", "key", "k_lin", ".k")),
    ("v", ("v_proj", "wv", "value", "v_lin", ".v")),
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


class _Dequantized(torch.autograd.Function):
    """x W^T with W made dense for the product and dropped: once there, once back.

    bitsandbytes kept x too (MatMul4Bit, `ctx.tensors = (A, B)`) until it dropped what no gradient reads. Fabric quantizes from
    float16 (`_Linear4bit.quantize`), so under bfloat16 each dense weight is made in float16 and cast: two stand at once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        if getattr(weight, "genwright_keeps", False):
            ctx.save_for_backward(x)
            if Recorder.current is not None:
                Recorder.current.hold(x)  # an attribute of ctx, not a saved tensor: the backward does not free it
        return F.linear(x, _dense(weight), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        dense = _dense(ctx.weight)
        return gradients[0].to(dense.dtype) @ dense, None, None


def _dense(weight: Tensor) -> Tensor:
    made = torch.empty_like(weight).copy_(weight.detach())
    return made.clone() if getattr(weight, "genwright_half", False) else made


class Dense(nn.Linear):
    """A frozen linear layer whose weight is kept in few bits."""

    def forward(self, x: Tensor) -> Tensor:
        """The product with the weight made dense."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        return _Dequantized.apply(x.to(dtype), self.weight, self.bias)


def quantize_(model: Any, base: str, profile: Profile) -> None:
    """Every linear layer, the head only where the framework takes it too; what stands outside keeps the compute type."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (role_of(name) != "head" or profile.quantizes_head):
            module.__class__ = Dense
            keeps = profile.keeps_quantized_input and base in KEEP_INPUT
            mark_(module.weight, genwright_base=base, genwright_keeps=keeps, genwright_half=profile.dequantizes_half)


def adapt_(model: Any, setup: Setup, profile: Profile, dtype: torch.dtype, masters: torch.dtype) -> None:
    """Adapters where the setup wants them; one product for queries, keys and values where the framework has one.

    What an adapter adds is kept in `dtype`, what it trains of the base in `masters`.
    """
    if profile.fused_qkv and setup.adapter in ("full", *LOW_RANK, *ELSEWHERE):
        _fuse_qkv_(model)
    if setup.adapter in ELSEWHERE:
        adaption_prompts_(model, dtype, whole=setup.adapter.endswith("v2"))
    elif is_wrapped(setup, profile, model.config):
        wrap_(model, setup, profile, masters, dtype)
    elif setup.adapter != "full":
        _low_rank_(model, setup, profile, dtype)
    if setup.trains_embeddings:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if module is not None:
                module.weight.requires_grad_(True)
    for module in model.modules():
        if "Attention" in type(module).__name__:
            module.genwright_expand, module.genwright_by_heads = profile.expand_keys, profile.queries_by_heads


def _low_rank_(model: Any, setup: Setup, profile: Profile, dtype: torch.dtype) -> None:
    found = [(name, module) for name, module in model.named_modules() if is_linear(module)]
    for name, module in found:
        role = role_of(name)
        if _wanted(role, setup.targets):
            sizes = sizes_of(module)
            parts = _parts(model.config, sizes[1], setup.targets) if role == "qkv" and profile.fused_qkv else ()
            replace_(model, name, LowRank(module, sizes, setup.rank, profile.dropout, dtype, parts))


def _parts(config: Any, outputs: int, targets: tuple[str, ...]) -> tuple[int, ...]:
    """Outputs of queries, keys and values in one product, those that are adapted; none where all are, or nobody can tell."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    shared = heads / (getattr(text, "num_key_value_heads", None) or heads)
    each = outputs / (1 + 2 / shared)
    sizes = {"q": int(each), "k": int(each / shared), "v": int(each / shared)}
    found = tuple(size for name, size in sizes.items() if name in targets)
    return found if 0 < len(found) < len(sizes) and sum(sizes.values()) == outputs else ()


def is_linear(module: Any) -> bool:
    """A product with a weight, by either of its two classes."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def sizes_of(module: Any) -> tuple[int, int]:
    """(inputs, outputs)."""
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (module.nx, module.nf)


def replace_(model: Any, name: str, module: nn.Module) -> None:
    """Puts a module where another stood."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _fuse_qkv_(model: Any) -> None:
    for module in list(model.modules()):
        names = [name for name in ("q_proj", "k_proj", "v_proj") if isinstance(getattr(module, name, None), nn.Linear)]
        if len(names) == 3:
            whole = FusedQKV([getattr(module, name) for name in names])
            for number, name in enumerate(names):
                setattr(module, name, Part(whole, number))


PROMPT, FIRST_PROMPTED = 10, 2
"""Learned positions of a layer, and the first layer that has them (LitGPT: adapter_prompt_length, adapter_start_layer)."""


def adaption_prompts_(model: Any, dtype: torch.dtype, *, whole: bool) -> None:
    """LLaMA-Adapter (arXiv 2303.16199): learned positions and a gate a head.

    `whole` (V2, arXiv 2304.15010): also a scale and a shift for each product, and the norms.
    """
    config = model.config.get_text_config()
    for number, layer in enumerate(layers_of(model)[0]):
        if number >= FIRST_PROMPTED:
            attention = next(module for module in layer.children() if "Attention" in type(module).__name__)
            attention.genwright_prompt = adapter_parameter(1, PROMPT, config.hidden_size, dtype=dtype)
            attention.genwright_gate = adapter_parameter(1, 1, config.num_attention_heads, 1, dtype=dtype)
    if not whole:
        return
    for name, module in [(name, module) for name, module in model.named_modules() if is_linear(module)]:
        replace_(model, name, Scaled(module, sizes_of(module)[1], dtype))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)


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


class _FusedGate(torch.autograd.Function):
    """act(gate) x up in one kernel each way: keeps the two alone (Megatron: core/fusions/fused_bias_swiglu.py)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gate * up

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return gradients[0] * up, gradients[0] * gate


def fuse_gates_(model: nn.Module) -> None:
    """Every gated feed-forward's activation and product in one kernel."""
    for module in model.modules():
        if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            module.forward = partial(_gated, module)


def _gated(module: Any, x: Tensor) -> Tensor:
    return torch.as_tensor(module.down_proj(_FusedGate.apply(module.gate_proj(x), module.up_proj(x))))
