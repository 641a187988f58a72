"""The losses that frameworks take of a model's logits, by what they keep: whole or in pieces, in the compute type or in float32.

Legend: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genwright.plan.frameworks import Profile

LOSS_CHUNKS = 8


def loss_of(model: Any, hidden_BTD: Tensor, labels_BT: Tensor, profile: Profile, compiled: bool) -> tuple[Tensor, Any]:
    """The loss, and the logits that it was computed from."""
    head = nn.Identity() if model.base_model is model else model.get_output_embeddings()
    if head is None:
        return hidden_BTD.float().mean(), None
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    logits_of: Callable[[Tensor], Tensor] = lambda hidden: torch.tanh(head(hidden) / cap) * cap if cap else head(hidden)
    kind = COMPILED.get(profile.logits, profile.logits) if compiled else profile.logits
    return LOSSES[kind](logits_of, hidden_BTD, labels_BT)


def _cross_entropy(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.flatten(0, -2), labels_BT.flatten())


Loss = tuple[Tensor, Any]


def _all_fp32(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    logits = logits_of(hidden).float()
    return _cross_entropy(logits, labels), logits


def _all_fp32_shifted(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    logits = logits_of(hidden).float()
    return _cross_entropy(logits[:, :-1].contiguous(), labels[:, 1:].contiguous()), logits


def _all_compute(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    logits = logits_of(hidden)
    return _cross_entropy(logits, labels), logits


def _chunked(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    chunks = [logits_of(part) for part in hidden.chunk(LOSS_CHUNKS, 1)]
    losses = [
        _cross_entropy(chunk.float(), part) for chunk, part in zip(chunks, labels.chunk(LOSS_CHUNKS, 1), strict=True)
    ]
    return torch.stack(losses).sum(), chunks


def _chunked_fp32(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    chunks = [logits_of(part) for part in hidden.split(128, 1)]
    chunks = [chunk.float() for chunk in chunks]
    pairs = zip(chunks, labels.split(128, 1), strict=True)
    losses = [F.cross_entropy(chunk.flatten(0, -2), part.flatten(), reduction="none") for chunk, part in pairs]
    return torch.cat(losses).mean(), chunks


def _piecewise(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    """Each piece's logits are made again in the backward: none are kept."""
    run = lambda part, answer: _cross_entropy(logits_of(part).float(), answer)
    parts = zip(hidden.chunk(LOSS_CHUNKS, 1), labels.chunk(LOSS_CHUNKS, 1), strict=True)
    return torch.stack([checkpoint(run, *pair, use_reentrant=False) for pair in parts]).sum(), None


class _FusedCrossEntropy(torch.autograd.Function):
    """Softmax and its logarithm in one kernel each way: keeps the logits and a number a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits, logits.new_empty(logits.shape[:-1], dtype=torch.float32))
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.empty_like(ctx.saved_tensors[0]).copy_(ctx.saved_tensors[0])


def _fused_softmax(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    logits = logits_of(hidden)
    return _FusedCrossEntropy.apply(logits), logits


def _chunked_fused(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Loss:
    chunks = [logits_of(part) for part in hidden.chunk(LOSS_CHUNKS, 1)]
    return torch.stack([_FusedCrossEntropy.apply(chunk) for chunk in chunks]).sum(), chunks


COMPILED = {"chunked": "chunked-fused", **dict.fromkeys(("fp32", "fp32-shift", "compute", "learned"), "fused-softmax")}
"""What torch.compile makes of a loss: softmax and its logarithm in one kernel."""
LOSSES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Loss]] = {
    "fp32": _all_fp32, "fp32-shift": _all_fp32_shifted, "compute": _all_compute, "chunked": _chunked, "chunked-fp32": _chunked_fp32,
    "fused": _piecewise, "learned": _all_fp32, "chunked-fused": _chunked_fused, "fused-softmax": _fused_softmax,
}  # fmt: skip
