"""The sizes of a decoder that decide its work, read from a transformers config. No torch here.

One reader for every family: configs name the same size differently (`n_embd`, `hidden_size`), and few differ in kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genwright.base.errors import ModelError

NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "inner": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff"),
    "vocabulary": ("vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "chosen": ("num_experts_per_tok", "num_experts_per_token"),
}
PLAIN = (
    "gpt2",
    "gpt_neox",
    "gptj",
    "gpt_neo",
    "bloom",
    "opt",
    "falcon",
    "mpt",
    "phi",
    "codegen",
    "starcoder2",
    "gpt_bigcode",
    "xglm",
    "biogpt",
    "persimmon",
)
"""Model types whose feed-forward has two products, not three with a gate."""
TIED = (
    "gpt2",
    "bloom",
    "opt",
    "gpt_neo",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt_bigcode",
    "mpt",
    "falcon",
    "starcoder2",
    "xglm",
)
"""Model types whose head is the embedding unless the config says otherwise."""
POSITIONS = {
    "gpt2": "n_positions",
    "opt": "max_position_embeddings",
    "gpt_bigcode": "n_positions",
    "gpt_neo": "max_position_embeddings",
}


@dataclass(frozen=True)
class Dims:
    """A decoder: `layers` blocks of attention and a feed-forward, an embedding and a head."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int
    gated: bool
    tied: bool
    model_type: str
    experts: int = 0
    """Feed-forwards of a block among which a token chooses; 0: one, for all."""
    chosen: int = 1
    """Of them, how many a token passes through."""
    shared_inner: int = 0
    """Width of experts that every token passes through beside the chosen ones."""
    positions: int = 0
    """Rows of a learned table of positions."""
    window: int = 0
    """Tokens that attention looks back; 0: all."""
    bias: bool = False
    """Linear layers add one."""

    @property
    def attention_weights(self) -> int:
        """Of one block: queries, keys, values, output."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        return self.width * (2 * queries + 2 * keys)

    @property
    def expert_weights(self) -> int:
        """Of one feed-forward."""
        return (3 if self.gated else 2) * self.width * self.inner

    @property
    def block_weights(self) -> int:
        """Of one block, its norms and biases too."""
        small = 2 * self.width + ((4 * self.width + self.inner + 2 * self.width) if self.bias else 0)
        shared = (3 if self.gated else 2) * self.width * self.shared_inner + self.width * self.experts
        return self.attention_weights + max(1, self.experts) * self.expert_weights + shared + small

    @property
    def active_block_weights(self) -> int:
        """What one token passes through."""
        idle = max(0, self.experts - self.chosen) * self.expert_weights if self.experts else 0
        return self.block_weights - idle

    @property
    def embedding_weights(self) -> int:
        """Of the table of tokens."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Distinct weights, to within norms and biases."""
        tables = self.embedding_weights * (1 if self.tied else 2) + self.positions * self.width + self.width
        return self.layers * self.block_weights + tables

    def kv_bytes(self, each: float = 2.0) -> float:
        """Of one token: 2 L n_kv d_head bytes (n_kv, not n_heads)."""
        return 2 * self.layers * self.kv_heads * self.head_width * each


def dims_of(config: dict[str, Any]) -> Dims:
    """Errors: ModelError naming the size that the config lacks."""
    config = {**config, **config.get("text_config", {})} if "text_config" in config else config
    kind = str(config.get("model_type", "llama"))
    layers, width, heads = (_size(config, name) for name in ("layers", "width", "heads"))
    head_width = int(config.get("head_dim") or config.get("kv_channels") or width // heads)
    inner = int(_found(config, "inner") or 4 * width)
    if kind == "qwen":  # the first Qwen states both halves of its gated feed-forward together
        inner //= 2
    moe = int(config.get("moe_intermediate_size") or inner)
    experts = int(_found(config, "experts") or 0)
    return Dims(
        layers, width, heads, _kv_heads(config, kind, heads), head_width, moe if experts else inner,
        _size(config, "vocabulary"), kind not in PLAIN, bool(config.get("tie_word_embeddings", kind in TIED)), kind,
        experts, int(_found(config, "chosen") or 1) if experts else 1,
        int(config.get("shared_expert_intermediate_size") or 0) if experts else 0,
        int(config.get(POSITIONS[kind], 0)) if kind in POSITIONS else 0,
        int(config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0,
        kind in PLAIN and kind not in ("falcon", "mpt"),
    )  # fmt: skip


def _kv_heads(config: dict[str, Any], kind: str, heads: int) -> int:
    if kind == "falcon":
        return (
            int(config.get("num_kv_heads") or heads)
            if config.get("new_decoder_architecture")
            else 1
            if config.get("multi_query", True)
            else heads
        )
    if kind == "gpt_bigcode":
        return 1 if config.get("multi_query", True) else heads
    return int(config.get("num_key_value_heads") or heads)


def _found(config: dict[str, Any], size: str) -> Any:
    return next((config[name] for name in NAMES[size] if config.get(name)), None)


def _size(config: dict[str, Any], size: str) -> int:
    value = _found(config, size)
    if not value:
        raise ModelError(
            f"The config states no {size} of a decoder.", wanted=" or ".join(NAMES[size]), found=", ".join(sorted(config)[:12]),
            do="plan a causal language model, or give its whole config.json",
        )  # fmt: skip
    return int(value)
