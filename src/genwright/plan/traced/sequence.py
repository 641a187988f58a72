"""Sequence parallelism in a traced model: beside tensor parallelism, norms and residuals have a rank's share of the tokens.

Tokens are gathered before what is split over tensor-parallel ranks (attention, feed-forward, head) and summed and scattered after it;
the embedding's rows are scattered at once (Korthikanti 2022, arXiv 2205.05198, section 4.2.2; torchtitan: models/llama3/parallelize.py).
All that a layer keeps is then a share: 34 / t bytes a number of the stream instead of 10 + 24 / t (table 2). The messages themselves are
priced apart, so they take memory here and no time.

Legend: B rows, T tokens, S tokens of a rank, D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genwright.models.surgery import layers_of


def split_sequence_(model: Any, degree: int, *, keeps: bool) -> None:
    """Give the stream of `model`, whose layers are one rank's already, to `degree` ranks.

    `keeps`: products keep what was gathered for them (DTensor); else their own share, and gather again on the way back (Megatron:
    core/tensor_parallel/layers.py).
    """
    tokens = _Tokens(degree)
    model.get_input_embeddings().register_forward_hook(tokens.scatter)
    layers, norm = layers_of(model)
    for part in (child for layer in layers for child in layer.children()):
        if any(parameter.ndim > 1 for parameter in part.parameters()):
            part.register_forward_pre_hook(tokens.gather_kept if keeps else tokens.gather_anew, with_kwargs=True)
            part.register_forward_hook(tokens.scatter)
    (norm or layers[-1]).register_forward_hook(tokens.gather_last)


class _Tokens:
    """The hooks of one model. T is what the embedding gave last."""

    def __init__(self, degree: int) -> None:
        self.degree, self.whole = degree, 0

    def scatter(self, module: nn.Module, _: Any, out: Any) -> Any:
        """[B, T, D] to [B, S, D], of a tuple its first."""
        if isinstance(out, tuple):
            return (self.scatter(module, _, out[0]), *out[1:])
        self.whole = out.shape[1]
        return _Scattered.apply(out, math.ceil(self.whole / self.degree))

    def gather_kept(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """[B, S, D] to [B, T, D] in memory of its own."""
        return self._gathered(args, kwargs, keeps=True)

    def gather_anew(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The same, of which a product keeps its share alone."""
        return self._gathered(args, kwargs, keeps=False)

    def gather_last(self, _: nn.Module, __: Any, out: Any) -> Any:
        """What the head reads: the one buffer that is gathered into stands here."""
        hidden = out[0] if isinstance(out, tuple) else out
        whole = _Gathered.apply(hidden, self.whole, True)
        return (whole, *out[1:]) if isinstance(out, tuple) else whole

    def _gathered(self, args: Any, kwargs: Any, *, keeps: bool) -> tuple[Any, Any]:
        keeps = keeps or not torch.is_grad_enabled()
        if args:
            return (_Gathered.apply(args[0], self.whole, keeps), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": _Gathered.apply(kwargs["hidden_states"], self.whole, keeps)}


class _Gathered(torch.autograd.Function):
    """All ranks' tokens; backward, a rank's share of the summed gradient."""

    @staticmethod
    def forward(ctx: Any, mine_BSD: Tensor, whole: int, keeps: bool) -> Tensor:
        ctx.share = mine_BSD.shape[1]
        batch, _, width = mine_BSD.shape
        if keeps:
            return mine_BSD.new_empty(batch, whole, width)
        return mine_BSD[:1, :1].expand(batch, whole, width)  # T tokens that take the memory of S

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        (gradient_BTD,) = gradients
        return gradient_BTD.new_empty(gradient_BTD.shape[0], ctx.share, gradient_BTD.shape[2]), None, None


class _Scattered(torch.autograd.Function):
    """A rank's share of the tokens, summed over ranks; backward, all ranks' tokens."""

    @staticmethod
    def forward(ctx: Any, whole_BTD: Tensor, share: int) -> Tensor:
        ctx.whole = whole_BTD.shape[1]
        return whole_BTD.new_empty(whole_BTD.shape[0], share, whole_BTD.shape[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient_BSD,) = gradients
        return gradient_BSD.new_empty(gradient_BSD.shape[0], ctx.whole, gradient_BSD.shape[2]), None
