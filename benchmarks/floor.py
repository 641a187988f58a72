"""The FLOPs that LoRA training cannot do without (matrix products only). Standard library only.

    (4 N + 4 f H + 6 N_adapter) * tokens + attention per document

N: weights of the body's linear layers. H: of the head, used only at the share f of positions where a token is learned.
4 = forward 2 + input gradient 2: a frozen base has no weight gradients. Attention, causal, forward and both input
gradients: 3 * 4 * layers * width_of_all_heads * L (L + 1) / 2 for a document of L tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def linear_shapes(config: dict[str, Any]) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear layers of one block of a Llama-like decoder."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, config.get("num_key_value_heads", heads) * head
    attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


def lora_floor(config: dict[str, Any], *, rank: int, lengths: Iterable[int], learned: int) -> dict[str, float]:
    """FLOPs of one pass over documents of these lengths, `learned` of whose tokens are learned: by part, in total."""
    lengths = list(lengths)
    tokens, layers = sum(lengths), config["num_hidden_layers"]
    shapes = linear_shapes(config)
    body = layers * sum(inputs * outputs for inputs, outputs in shapes)
    adapter = layers * sum(rank * (inputs + outputs) for inputs, outputs in shapes)
    head = config["vocab_size"] * config["hidden_size"]
    attended = shapes[0][1] * layers * sum(length * (length + 1) / 2 for length in lengths)
    parts = {
        "body": 4.0 * body * tokens,
        "head": 4.0 * head * learned,
        "adapter": 6.0 * adapter * tokens,
        "attention": 12.0 * attended,
    }
    return {**parts, "total": sum(parts.values())}
