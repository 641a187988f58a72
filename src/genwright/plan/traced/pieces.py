"""One microbatch of a model with few layers, cut at its layers: what a step of any depth is put together from. No torch here.

The first, a middle and the last layer of each stack were traced; the others equal the middle one (a test holds the whole
equal to the parts). Weights are listed, not traced.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

HELD = -2
"""Instead of a weight: the storage lives as long as the graph that made it, not as long as the backward needs it."""


class Change(NamedTuple):
    """A storage taken or given back, in a segment."""

    owner: int
    """Number of the segment that took it."""
    ordinal: int
    """Which of that segment's."""
    bytes: int
    """As asked for; 0: given back."""
    part: str = ""
    """"activations", "gradients", "logits and loss", "temporaries"."""
    weight: int = -1
    """Number in `weights` of what it is the gradient of; the change is then a mark, when the gradient is complete."""


class PieceOp(NamedTuple):
    """Equal operations of a segment; fields as `record.Op`."""

    op: str
    kind: str
    dtype: str
    flops: float
    bytes: float
    count: float  # type: ignore[assignment]  # hides tuple.count, which nobody asks
    again: bool
    """Recomputed."""
    shape: tuple[int, int, int, int]


def _piece_op(row: list[Any]) -> PieceOp:
    op, kind, dtype, flops, traffic, count, again, shape = row
    return PieceOp(op, kind, dtype, flops, traffic, count, again, tuple(shape))


class Segment(NamedTuple):
    """A stretch of a microbatch: a layer's forward or backward, or what stands between layers."""

    name: str
    """"forward", "loss" or "backward"."""
    stack: int
    """Of layers; -1: between them."""
    layer: int
    """Of those traced, from 0."""
    changes: list[Change]
    ops: list[PieceOp]


class Weight(NamedTuple):
    """A parameter, or what stands for one."""

    name: str
    """As the model names it."""
    stack: int
    """-1: outside the layers."""
    layer: int
    """Of those traced."""
    numel: int
    trained: bool
    bytes_each: float
    """As kept: 4, 2, 1, or 4 bits and its block's constants."""
    embedding: bool
    """A table of the vocabulary, which costs no product."""
    adapter: bool
    experts: float = 1.0
    """Share that one token passes through."""
    whole: int = 0
    """Numbers of an adapter's weight on all tensor-parallel ranks together; 0: not known apart."""


@dataclass(frozen=True)
class Pieces:
    """All that a trace knows."""

    segments: list[Segment]
    weights: list[Weight]
    layers: list[int]
    """Of each stack, in the whole model."""
    traced: list[int]
    """Of each stack, here."""
    width: int
    head_width: int
    heads: int
    vocabulary: int
    context: int
    """The longest the model reads; 0: not stated."""
    left_out: list[str]
    buffers: int = 0
    """Bytes of what is neither weight nor activation: positions' tables."""
    layer_peak: int = 0
    """Live bytes of a forward without gradients, at the widest moment of the layers."""
    head_peak: int = 0
    """The same of the head and its loss."""
    cache_bytes: int = 0
    """Keys and values of a token, over all layers."""
    tail: int = 1
    """Last layers of a stack that stand for themselves alone; the one before them stands for all between."""

    def to_json(self) -> str:
        """Text that `read` reads."""
        return json.dumps(asdict(self) | {"segments": self.segments, "weights": self.weights})

    @staticmethod
    def read(text: str) -> Pieces:
        """From `to_json`."""
        values: dict[str, Any] = json.loads(text)
        values["segments"] = [
            Segment(
                name,
                stack,
                layer,
                [Change(*row) for row in changes],
                [_piece_op(row) for row in ops],
            )
            for name, stack, layer, changes, ops in values["segments"]
        ]
        values["weights"] = [Weight(*row) for row in values["weights"]]
        return Pieces(**values)
