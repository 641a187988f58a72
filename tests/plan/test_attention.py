"""Attention of a trace: the kernel that a GPU would take, whatever the heads' widths, and the numbers that it gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genwright.plan.architectures import config_of
from genwright.plan.published.frameworks import filled
from genwright.plan.traced.attention import _attend
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.trace_setup import trace_pieces

LATENT = {
    "model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
    "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 16, "q_lora_rank": None,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize("width", [16, 24])
def test_narrow_values_are_mixed_by_the_same_weights(width: int) -> None:
    """softmax(q k / sqrt(d)) v, worked out in the open."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 7, size, generator=draw) for size in (24, 24, width))
    scores = (query @ key.transpose(2, 3) * 24**-0.5).masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    found, _ = _attend(SimpleNamespace(is_causal=True), query, key, value, None)
    torch.testing.assert_close(found, (scores.softmax(-1) @ value).transpose(1, 2), rtol=1e-5, atol=1e-5)


def kept(tokens: int) -> int:
    """The largest storage of a microbatch outside the head."""
    values: dict[str, Any] = {
        "model": LATENT,
        "framework": "transformers",
        "attention": "sdpa",
        "precision": "bf16-true",
    }
    one, profile, _ = filled(Setup(**values, seq_len=tokens).check())
    found = trace_pieces(one, profile, config_of(one.model))
    return max(change.bytes for one in found.segments for change in one.changes if one.stack >= 0)


def test_latent_attention_keeps_no_scores() -> None:
    """What grows with tokens squared is not there: eight times the tokens, eight times the largest storage."""
    assert kept(4096) == 8 * kept(512)
