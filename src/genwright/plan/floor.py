"""The products that a step cannot do without, in FLOPs: what a counted step is held against. Matrix products only.

    forward   2 N T + 2 H n + 4 A k        full       6 N T + 6 H n + 12 A k
    adapters  4 N T + 4 H n + 12 A k + 6 a T, less the input gradient below the lowest adapted layer
    head only 2 N T + 4 H n + 4 A k        (the body's share falls away where its hidden states are kept)

T tokens through the body, n positions with a label, k pairs of a query and a key it may see, summed over documents; N
weights of the body's linear layers, H of the head, a of the adapter, A = layers * width of all heads. A product costs 2 a
weight forward, 2 for the gradient of its input and 2 for that of its weight; a frozen weight has no gradient. Only seen
pairs count: a kernel that multiplies the whole square of a causal document is above this floor. Recomputed activations,
DoRA's norms and quantised products are beside it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, int]
"""(inputs, outputs) of a linear layer."""


@dataclass(frozen=True)
class Body:
    """What a model multiplies by."""

    block: tuple[Shape, ...]
    """The linear layers of one block."""
    layers: int
    """Blocks, all alike."""
    attended: int
    """Width of all query heads of a block."""
    head: int
    """H, weights of what stands on the body."""
    lowest: int = 0
    """Weights that read the first block's input as it comes: where that needs no gradient, 2 FLOPs of each fall away."""

    @property
    def weights(self) -> int:
        """N."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.block)

    def adapter(self, rank: int) -> int:
        """Weights of a low-rank adapter of every linear layer of the body."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.block)


@dataclass(frozen=True)
class Work:
    """What a step has to do with it."""

    tokens: int
    """T, each token of the step once: a prompt that several answers share is there once."""
    labels: int
    """n."""
    pairs: float
    """k of one block."""


def body_of(config: dict[str, Any], head: int | None = None) -> Body:
    """A Llama-like decoder's; `head` weights stand on it, the vocabulary's where none are named."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    each = config.get("head_dim") or width // heads
    queries, keys = heads * each, config.get("num_key_value_heads", heads) * each
    attention = ((width, queries), (width, keys), (width, keys), (queries, width))
    block = (*attention, (width, inner), (width, inner), (inner, width))
    of_head = config["vocab_size"] * width if head is None else head
    return Body(block, config["num_hidden_layers"], queries, of_head, width * (queries + 2 * keys))


def seen_pairs(document: Any, *, causal: bool = True, before: int = 0) -> int:
    """Pairs of a query and a key of one document: L (L + 1) / 2, L^2 where a token sees what follows it.

    A branching document (shared, branch, ...) counts its shared tokens once; each branch sees them and itself. `before`
    further tokens are seen by all.
    """
    if isinstance(document, int):
        return document * before + (document * (document + 1) // 2 if causal else document**2)
    shared, *branches = document
    behind = before + _tokens(shared)
    return seen_pairs(shared, before=before) + sum(seen_pairs(branch, before=behind) for branch in branches)


def work_of(documents: Iterable[Any], labels: int, *, causal: bool = True, prefix: int = 0) -> Work:
    """Of a step over these documents; `prefix` keys are seen by every token besides."""
    documents = list(documents)
    pairs = sum(seen_pairs(document, causal=causal, before=prefix) for document in documents)
    return Work(sum(map(_tokens, documents)), labels, pairs)


def forward(body: Body, work: Work) -> float:
    """Evaluation: 2 N T + 2 H n + 4 A k."""
    return 2 * body.weights * work.tokens + 2 * body.head * work.labels + 4 * body.layers * body.attended * work.pairs


def full(body: Body, work: Work) -> float:
    """Every weight is trained: three times the forward."""
    return 3 * forward(body, work)


def adapted(body: Body, work: Work, adapter: float = 0, *, lowest: int = 0, tokens: int | None = None) -> float:
    """A frozen base: 4 N T + 4 H n + 12 A k + 6 a T.

    `adapter` weights are multiplied for each of `tokens` (the step's, if None); `lowest` weights of the body stand below
    the lowest that is adapted, and their input needs no gradient.
    """
    base = 2 * forward(body, work) + 4 * body.layers * body.attended * work.pairs
    return base + 6 * adapter * (work.tokens if tokens is None else tokens) - 2 * lowest * work.tokens


def head_only(body: Body, work: Work, *, kept: bool = False) -> float:
    """2 N T + 4 A k + 4 H n; 4 H n where the body's last hidden states are `kept` from an earlier epoch."""
    return 4 * body.head * work.labels if kept else forward(body, work) + 2 * body.head * work.labels


def last_layers(body: Body, work: Work, layers: int, *, trains_head: bool = False) -> float:
    """The top `layers` blocks are trained, their norms too: so what the lowest block's products read needs a gradient."""
    top = 4 * body.weights * layers / body.layers * work.tokens + 8 * layers * body.attended * work.pairs
    return forward(body, work) + top + (4 if trains_head else 2) * body.head * work.labels


def encoder_decoder(
    encoder: Body, decoder: Body, crossing: int, sources: Iterable[int], targets: Iterable[int], *, passes: int = 3
) -> float:
    """A source is read whole, a target causally, and each target sees its whole source; `passes` 1 is the forward, 3 training.

    `crossing` weights of the decoder read the source: a cross attention's keys and values. Its other weights, and the
    cross attention's queries and output, are in `decoder.block`.
    """
    sources, targets = list(sources), list(targets)
    crossed = 2 * crossing * sum(sources) + 4 * decoder.layers * decoder.attended * sum(
        source * target for source, target in zip(sources, targets)
    )
    read = forward(encoder, work_of(sources, 0, causal=False))
    return passes * (read + forward(decoder, work_of(targets, sum(targets))) + crossed)


def lora_parts(body: Body, work: Work, rank: int) -> dict[str, float]:
    """The floor of LoRA on every linear layer, by part and in total; the lowest layer's saving is left out (under 1 %)."""
    parts = {
        "body": 4.0 * body.weights * work.tokens,
        "head": 4.0 * body.head * work.labels,
        "adapter": 6.0 * body.adapter(rank) * work.tokens,
        "attention": 12.0 * body.layers * body.attended * work.pairs,
    }
    return {**parts, "total": sum(parts.values())}


def _tokens(document: Any) -> int:
    return document if isinstance(document, int) else sum(map(_tokens, document))
