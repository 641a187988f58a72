"""Attention in which documents laid end to end never see each other.

The field's default builds a T x T block mask, and only if nothing else is passed; an all-ones mask or a cache silently
turns it off (packed SmolLM2: logits off by 20). Here the documents travel with the batch. Documents of similar length
are attended together in one call, padded on the right inside that call only: no mask across documents, no padded token
anywhere else in the model.

Which kernel: on a CPU, plain matrix products up to 1,024 tokens (torch 2.13's fused CPU kernel took 3 to 30 times as
long in bf16 forward and backward at 64 to 128 tokens, `benchmarks/attention.py`); elsewhere torch's fused kernel.

Legend: B rows of a batch, T tokens of a row, H heads, K key/value heads, D head width; G documents of a group, L its
longest length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

NAME = "genwright_documents"
"""The attention implementation's name in `transformers`. Not in its mask registry, so no mask is ever built for it."""

LONGEST_BY_MATMUL = 1024
"""Up to here a CPU attends by plain matrix products; beyond, the score matrix outgrows the cache and the fused kernel wins."""

CALL_COST = 65_536
"""What one more group costs, in elements of a score matrix: its operations are launched for every layer, both ways."""


@dataclass(frozen=True)
class Group:
    """Documents attended in one call. `slots_GL` are flat token positions in B*T; a padding slot repeats the first token."""

    slots_GL: Tensor
    lengths: tuple[int, ...]
    slot_of_token_T: Tensor
    """For each flat token position its slot in this group; 0 for tokens of other groups, which `token_here_T11` zeroes."""
    token_here_T11: Tensor | None
    real_slot_S11: Tensor | None
    """1 for a token's own slot, 0 for padding. Both are None where everything is 1."""


@dataclass(frozen=True)
class Documents:
    """Where each document's tokens lie, and where each token's output is found again."""

    groups: tuple[Group, ...]
    where_T: Tensor
    """For each flat position in B*T, its slot among all groups' slots laid end to end; padding points at slot 0."""


def documents(
    lengths: Sequence[Sequence[int]],
    width: int,
    device: torch.device | str = "cpu",
    *,
    padding: int = 0,
    round_to: int = 1,
) -> Documents:
    """The layout of rows `width` tokens wide whose documents have these lengths, in order; the rest of a row is padding.

    `padding` further tokens may follow all rows. A group's longest length is rounded up to a multiple of `round_to`.
    """
    layout, where = _layout(tuple(tuple(row) for row in lengths), width, padding, round_to)
    where_T = torch.tensor(where, device=device)
    groups, first_slot = [], 0
    for slots, sizes in layout:
        groups.append(_group(torch.tensor(slots, device=device), sizes, where_T - first_slot))
        first_slot += len(slots) * len(slots[0])
    return Documents(tuple(groups), where_T)


def _group(slots_GL: Tensor, sizes: tuple[int, ...], slot_T: Tensor) -> Group:
    num_slots, longest, device = slots_GL.numel(), slots_GL.shape[1], slots_GL.device
    sizes_G = torch.tensor(sizes, device=device)
    real_S = (torch.arange(longest, device=device)[None, :] < sizes_G[:, None]).flatten()
    slot_T = slot_T.clamp(0, num_slots - 1)
    # A token is here if its slot holds it: padding tokens point at slot 0, which holds another.
    here_T = slots_GL.flatten().index_select(0, slot_T) == torch.arange(slot_T.numel(), device=device)
    whole = sum(sizes) == slot_T.numel()
    full = min(sizes) == longest
    return Group(
        slots_GL, sizes, slot_T, None if whole else here_T[:, None, None], None if full else real_S[:, None, None]
    )  # fmt: skip


@lru_cache(maxsize=256)
def _layout(
    lengths: tuple[tuple[int, ...], ...], width: int, padding: int, round_to: int
) -> tuple[list[tuple[list[list[int]], tuple[int, ...]]], list[int]]:
    starts = [
        (row * width + sum(row_lengths[:index]), length)
        for row, row_lengths in enumerate(lengths)
        for index, length in enumerate(row_lengths)
    ]
    where, groups, used = [0] * (len(lengths) * width + padding), [], 0
    for members in group_by_length(sorted(starts, key=lambda item: -item[1])):
        longest = math.ceil(members[0][1] / round_to) * round_to
        slots = [[start + i if i < length else start for i in range(longest)] for start, length in members]
        for number, (start, length) in enumerate(members):
            where[start : start + length] = range(used + number * longest, used + number * longest + length)
        groups.append((slots, tuple(length for _, length in members)))
        used += len(members) * longest
    return groups, where


def group_by_length(longest_first: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Cut (start, length) pairs, longest first, where padding the rest up would cost more than one more call."""
    groups: list[list[tuple[int, int]]] = []
    for index, (start, length) in enumerate(longest_first):
        if groups:
            longest = groups[-1][0][1]
            if (longest**2 - length**2) * (len(longest_first) - index) <= CALL_COST:
                groups[-1].append((start, length))
                continue
        groups.append([(start, length)])
    return groups


def attention_per_document(
    module: torch.nn.Module, query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, attention_mask: Tensor | None,
    *, documents: Documents, scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """softmax(q k^T scale) v within each document, causal where the module is. Returns [B, T, H, D].

    Errors: ValueError for attention dropout, which the plain products leave out; no packaged model trains with it.
    """
    if dropout:
        raise ValueError("attention dropout is not supported here: set attention_dropout to 0 in the model's config")
    tokens = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query_BHTD, key_BKTD, value_BKTD)]
    scale = scaling if scaling is not None else query_BHTD.shape[-1] ** -0.5
    outputs = []
    for group in documents.groups:
        q, k, v = (_Gather.apply(tensor, group) for tensor in tokens)
        mask = _mask(group, getattr(module, "is_causal", True), sliding_window)
        outputs.append(_attend(q, k, v, mask, scale, softcap).flatten(0, 1))
    slots = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    output = _Scatter.apply(slots, documents)
    return output.view(query_BHTD.shape[0], query_BHTD.shape[2], *output.shape[1:]), None


def _mask(group: Group, causal: bool, window: int | None) -> Tensor | None:
    """True where attended: [L, L], or [G, 1, L, L] where padding must be hidden; None when everything is."""
    longest, device = group.slots_GL.shape[1], group.slots_GL.device
    distance = torch.arange(longest, device=device)[:, None] - torch.arange(longest, device=device)[None, :]
    mask = distance >= 0 if causal else None
    if window is not None and longest > window:
        near = distance < window if causal else distance.abs() < window
        mask = near if mask is None else mask & near
    if not causal and min(group.lengths) < longest:
        real = torch.arange(longest, device=device)[None, :] < torch.tensor(group.lengths, device=device)[:, None]
        mask = real[:, None, None, :] if mask is None else mask & real[:, None, None, :]
    return mask


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """Attend with q [G, L, H, D], k and v [G, L, K, D]; returns [G, L, H, D]. Heads that share a key are folded together."""
    if softcap is None and (q.device.type != "cpu" or q.shape[1] > LONGEST_BY_MATMUL):
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale, enable_gqa=True
        )
        return mixed.transpose(1, 2)
    num, length, num_heads, width = q.shape
    shared = num_heads // k.shape[2]
    folded = (
        (q * scale)
        .view(num, length, k.shape[2], shared, width)
        .permute(0, 2, 3, 1, 4)
        .reshape(num, k.shape[2], -1, width)
    )
    scores = folded @ k.permute(0, 2, 3, 1)
    scores = torch.tanh(scores / softcap) * softcap if softcap is not None else scores
    scores = scores.view(num, num_heads, length, length)
    scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).view(num, k.shape[2], shared * length, length)
    mixed = weights @ v.transpose(1, 2)
    return (
        mixed.view(num, k.shape[2], shared, length, width).permute(0, 3, 1, 2, 4).reshape(num, length, num_heads, width)
    )


class _Gather(torch.autograd.Function):
    """Tokens to slots. Every token has one slot, so the way back is a gather too: exact, deterministic, no atomic adds."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return tokens.index_select(0, group.slots_GL.flatten()).view(*group.slots_GL.shape, *tokens.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].flatten(0, 1).index_select(0, ctx.group.slot_of_token_T)
        return gradient if ctx.group.token_here_T11 is None else gradient * ctx.group.token_here_T11, None


class _Scatter(torch.autograd.Function):
    """Slots back to tokens. A padding slot gets no gradient: nobody reads its output."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, documents: Documents) -> Tensor:
        ctx.documents = documents
        return slots.index_select(0, documents.where_T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        pieces = []
        for group in ctx.documents.groups:
            gradient = gradients[0].index_select(0, group.slots_GL.flatten())
            pieces.append(gradient if group.real_slot_S11 is None else gradient * group.real_slot_S11)
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0], None


AttentionInterface.register(NAME, attention_per_document)


@contextmanager
def ordinary_attention(model: Any) -> Iterator[None]:
    """Generation and scoring use transformers' own attention and masks; training's comes back afterwards."""
    before = model.config._attn_implementation
    if before != NAME:
        yield
        return
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
