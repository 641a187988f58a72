"""The losses that frameworks take of a model's logits, by what they keep: whole or in pieces, in the compute type or in float32.

Each is two functions: one makes the logits, one takes the loss of them. Legend: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genwright.plan.published.profile import Profile

LOSS_CHUNKS = 8
ROWS_OF_A_CHUNK = 128
"""LitGPT's `lm_head_chunk_size` and `chunked_cross_entropy`."""
LogitsOf = Callable[[Tensor], Tensor]


def loss_of(
    model: Any, hidden_BTD: Tensor, labels_BT: Tensor, profile: Profile, compiled: bool, made: Callable[[], Any]
) -> tuple[Tensor, Any]:
    """The loss, and the logits that it was computed from; `made` is called between the two."""
    head = nn.Identity() if model.base_model is model else model.get_output_embeddings()
    if head is None:
        return hidden_BTD.float().mean(), None
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    logits_of: LogitsOf = lambda hidden: torch.tanh(head(hidden) / cap) * cap if cap else head(hidden)
    fused = {**COMPILED, **profile.compiled_logits} if compiled else {}
    loss = LOSSES[fused.get(profile.logits, profile.logits)]
    logits = loss.make(logits_of, hidden_BTD)
    made()
    return loss.take(logits, labels_BT, logits_of), logits


def _whole(logits_of: LogitsOf, hidden: Tensor) -> Tensor:
    return logits_of(hidden)


def _whole_fp32(logits_of: LogitsOf, hidden: Tensor) -> Tensor:
    return logits_of(hidden).float()


def _chunks(logits_of: LogitsOf, hidden: Tensor) -> list[Tensor]:
    return [logits_of(part) for part in hidden.chunk(LOSS_CHUNKS, 1)]


def _chunks_fp32(logits_of: LogitsOf, hidden: Tensor) -> list[Tensor]:
    chunks = [logits_of(part) for part in hidden.split(ROWS_OF_A_CHUNK, 1)]
    return [chunk.float() for chunk in chunks]


def _none(_: LogitsOf, hidden: Tensor) -> Tensor:
    return hidden


def _cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, *_: Any) -> Tensor:
    return F.cross_entropy(logits_BTV.flatten(0, -2), labels_BT.flatten())


def _shifted(logits: Tensor, labels: Tensor, *_: Any) -> Tensor:
    return _cross_entropy(logits[:, :-1].contiguous(), labels[:, 1:].contiguous())


def _of_rows(chunks: Any, parts: Any) -> Tensor:
    pairs = zip(chunks, parts, strict=True)
    losses = [F.cross_entropy(chunk.flatten(0, -2), part.flatten(), reduction="none") for chunk, part in pairs]
    return torch.cat(losses).mean()


def _shifted_in_rows(logits: Tensor, labels: Tensor, *_: Any) -> Tensor:
    flat, answers = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return _of_rows(flat.split(ROWS_OF_A_CHUNK), answers.split(ROWS_OF_A_CHUNK))


def _in_rows(chunks: list[Tensor], labels: Tensor, *_: Any) -> Tensor:
    return _of_rows(chunks, labels.split(ROWS_OF_A_CHUNK, 1))


def _each(chunks: list[Tensor], labels: Tensor, *_: Any) -> Tensor:
    pairs = zip(chunks, labels.chunk(LOSS_CHUNKS, 1), strict=True)
    return torch.stack([_cross_entropy(chunk.float(), part) for chunk, part in pairs]).sum()


def _piecewise(hidden: Tensor, labels: Tensor, logits_of: LogitsOf) -> Tensor:
    """Each piece's logits are made again in the backward: none are kept."""
    run = lambda part, answer: _cross_entropy(logits_of(part).float(), answer)
    parts = zip(hidden.chunk(LOSS_CHUNKS, 1), labels.chunk(LOSS_CHUNKS, 1), strict=True)
    return torch.stack([checkpoint(run, *pair, use_reentrant=False) for pair in parts]).sum()


class _FusedCrossEntropy(torch.autograd.Function):
    """Softmax and its logarithm in one kernel each way: keeps the logits and a number a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits, logits.new_empty(logits.shape[:-1], dtype=torch.float32))
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.empty_like(ctx.saved_tensors[0]).copy_(ctx.saved_tensors[0])


def _fused(logits: Tensor, *_: Any) -> Tensor:
    return _FusedCrossEntropy.apply(logits)


def _each_fused(chunks: list[Tensor], *_: Any) -> Tensor:
    return torch.stack([_FusedCrossEntropy.apply(chunk) for chunk in chunks]).sum()


class Loss(NamedTuple):
    """How logits are made, and how the loss is taken of them."""

    make: Callable[[LogitsOf, Tensor], Any]
    take: Callable[..., Tensor]


LOSSES = {
    "fp32": Loss(_whole_fp32, _cross_entropy), "fp32-shift": Loss(_whole_fp32, _shifted), "fp32-rows": Loss(_whole_fp32, _shifted_in_rows),
    "compute": Loss(_whole, _cross_entropy), "chunked": Loss(_chunks, _each), "chunked-fp32": Loss(_chunks_fp32, _in_rows),
    "fused": Loss(_none, _piecewise), "learned": Loss(_whole_fp32, _cross_entropy), "chunked-fused": Loss(_chunks, _each_fused),
    "fused-softmax": Loss(_whole, _fused), "fp32-fused": Loss(_whole_fp32, _fused),
}  # fmt: skip
COMPILED = {"chunked": "chunked-fused", **dict.fromkeys(("fp32", "fp32-shift", "compute", "learned"), "fused-softmax")}
"""What torch.compile makes of a loss: softmax and its logarithm in one kernel."""
