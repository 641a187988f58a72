"""Attention as a GPU runs it, for a trace that is taken on the CPU: registered with transformers under names of its own.

Legend: B batch, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface


def attention_name(choice: str) -> str:
    """As transformers knows it."""
    return "genwright-plan-eager" if choice == "eager" else "genwright-plan"


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float | None = None,
    dropout: float = 0.0, softcap: float | None = None, eager: bool = False, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What a GPU runs: one kernel where it can, else products in the open (also where scores are capped).

    The kernel's result lies in memory as the queries do (flash_api.cpp: `empty_like(q)`): where those lie head by head, the
    tokens' rows that the next product reads are a copy. Heads of values that are narrower than those of keys (latent attention) are
    padded to the same width and what is mixed is cut, as transformers does before flash attention.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    causal = bool(getattr(module, "is_causal", True))
    shared = query.shape[1] // key.shape[1]
    if (eager or softcap or getattr(module, "genwright_expand", False)) and shared > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        shared = 1
    if not eager and not softcap:
        narrow = query.shape[-1] - value.shape[-1]
        padded = F.pad(value, (0, narrow)) if narrow > 0 else value
        mixed = F.scaled_dot_product_attention(
            query, key, padded, is_causal=causal, dropout_p=0.0, scale=scale, enable_gqa=shared > 1
        )[..., : value.shape[-1]]
        by_heads = (query.shape[1] > 1 and query.is_contiguous()) or getattr(module, "genwright_by_heads", False)
        mixed = mixed.transpose(1, 2)
        if hasattr(module, "genwright_prompt"):
            mixed = mixed + module.genwright_gate * _prompted(module, query)
        return mixed.clone() if by_heads else mixed.contiguous(), None
    scores = query @ key.transpose(2, 3) * scale
    scores = torch.tanh(scores / softcap) * softcap if softcap else scores
    hidden = torch.ones(query.shape[2], key.shape[2], dtype=query.dtype).triu(1) if causal else None
    scores = scores + hidden if hidden is not None else scores
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout) if dropout else weights
    return (weights @ value).transpose(1, 2).contiguous(), None


def _prompted(module: Any, query_BHTD: Tensor) -> Tensor:
    """[B, T, H, D]: what the queries find in a layer's learned positions (LitGPT: adapter.py)."""
    batch, heads, _, width = query_BHTD.shape
    keys, values = _prompt_keys(module, width)
    keys, values = (found.repeat_interleave(heads // found.shape[1], 1) for found in (keys, values))
    found = F.scaled_dot_product_attention(query_BHTD, keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1))
    return found.transpose(1, 2)


def _prompt_keys(module: Any, width: int) -> tuple[Tensor, Tensor]:
    """Keys and values of the learned positions, [1, H, T, D] each, by the layer's own product."""
    prompt = module.genwright_prompt
    if hasattr(module, "q_proj"):
        _, keys, values = (part(prompt) for part in (module.q_proj, module.k_proj, module.v_proj))
    else:
        whole = next(
            child
            for name, child in module.named_children()
            if name in ("query_key_value", "qkv_proj", "Wqkv", "c_attn")
        )
        _, keys, values = whole(prompt).chunk(3, -1)
    return tuple(found.reshape(1, prompt.shape[1], -1, width).transpose(1, 2) for found in (keys, values))


AttentionInterface.register("genwright-plan", _attend)
AttentionInterface.register("genwright-plan-eager", partial(_attend, eager=True))
