"""Attention in which documents laid end to end never see each other.

The field's default builds a T x T block mask, and only if nothing else is passed; an all-ones mask or a cache silently
turns it off (packed SmolLM2: logits off by 20). Here the documents travel with the batch. Documents of similar length
are attended together in one call, padded on the right inside that call only: no mask across documents, no padded token
anywhere else in the model.

A document may branch: a prompt's tokens stand in the row once, and each of its answers sees the prompt and itself. What
attends together is then a path (the prompt, one answer); only inside the attention call is the prompt there once a path.

Which kernel: on a CPU, plain matrix products up to 1,024 tokens (torch 2.13's fused CPU kernel took 3 to 30 times as
long in bf16 forward and backward at 64 to 128 tokens, `benchmarks/attention.py`); elsewhere torch's fused kernel.

Legend: B rows of a batch, T tokens of a row, H heads, K key/value heads, D head width; G paths of a group, L its longest
length, S = G*L its slots.
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

Document = int | tuple["Document", ...]
"""So many tokens; or (shared, branch, branch, ...): tokens that stand once, and branches that each see them and themselves."""

Path = tuple[tuple[int, int], ...]
"""(start, length) of each stretch of tokens that attends together, in order."""

CALL_COST = 65_536
"""What one more group costs, in elements of a score matrix: its operations are launched for every layer, both ways."""


@dataclass(frozen=True)
class Again:
    """Tokens that stand in a group once more, each at most once in this list: (token, slot)."""

    tokens_R: Tensor
    slots_R: Tensor


@dataclass(frozen=True)
class Group:
    """Paths attended in one call. `slots_GL` are flat token positions in B*T; a padding slot repeats the first token."""

    slots_GL: Tensor
    lengths: tuple[int, ...]
    slot_of_token_T: Tensor
    """For each flat token position its first slot in this group; 0 for tokens of other groups, which `token_here_T11` zeroes."""
    token_here_T11: Tensor | None
    read_slot_S11: Tensor | None
    """1 for the slot that a token's output is read from, 0 for others and padding. Both are None where everything is 1."""
    again: tuple[Again, ...]


@dataclass(frozen=True)
class Documents:
    """Where each document's tokens lie, and where each token's output is found again."""

    groups: tuple[Group, ...]
    where_T: Tensor
    """For each flat position in B*T, its slot among all groups' slots laid end to end; padding points at slot 0."""
    paths: tuple[Path, ...]
    round_to: int

    @property
    def branches(self) -> bool:
        """Whether any token stands in more than one path."""
        return len({start for path in self.paths for start, _ in path}) < sum(map(len, self.paths))

    def behind(self, prefix: int) -> Documents:
        """The same rows with `prefix` tokens in front of the first that every document sees."""
        paths = tuple(((0, prefix), *((start + prefix, length) for start, length in path)) for path in self.paths)
        return _documents(paths, self.where_T.numel() + prefix, self.round_to, self.where_T.device)


def documents(
    lengths: Sequence[Sequence[Document]],
    width: int,
    device: torch.device | str = "cpu",
    *,
    padding: int = 0,
    round_to: int = 1,
) -> Documents:
    """The layout of rows `width` tokens wide of these documents, in order; the rest of a row is padding.

    `padding` further tokens may follow all rows. A group's longest length is rounded up to a multiple of `round_to`.
    """
    paths: list[Path] = []
    for row, members in enumerate(lengths):
        start = row * width
        for document in members:
            paths += paths_of(document, start)
            start += tokens_of(document)
    return _documents(tuple(paths), len(lengths) * width + padding, round_to, device)


def tokens_of(document: Document) -> int:
    """How many tokens a document has in its row."""
    return document if isinstance(document, int) else sum(map(tokens_of, document))


def paths_of(document: Document, start: int = 0, seen: Path = ()) -> list[Path]:
    """The paths of a document that begins at token `start`: one, or one for each branch."""
    if isinstance(document, int):
        return [(*seen, (start, document))]
    shared, *branches = document
    seen = (*seen, (start, tokens_of(shared))) if tokens_of(shared) else seen
    start, paths = start + tokens_of(shared), []
    for branch in branches:
        paths += paths_of(branch, start, seen)
        start += tokens_of(branch)
    return paths


def places_of(document: Document, first: int = 0) -> list[int]:
    """The position of each token: counted from the document's beginning along its path."""
    if isinstance(document, int):
        return list(range(first, first + document))
    shared, *branches = document
    after = first + tokens_of(shared)
    return places_of(shared, first) + [place for branch in branches for place in places_of(branch, after)]


def _documents(paths: tuple[Path, ...], width: int, round_to: int, device: torch.device | str) -> Documents:
    layout, where = _layout(paths, width, round_to)
    where_T = torch.tensor(where, device=device)
    groups, first_slot = [], 0
    for slots, sizes in layout:
        groups.append(_group(slots, sizes, where, first_slot, device))
        first_slot += len(slots) * len(slots[0])
    return Documents(tuple(groups), where_T, paths, round_to)


def _group(
    slots_GL: list[list[int]], sizes: tuple[int, ...], where: list[int], first_slot: int, device: torch.device | str
) -> Group:
    longest = len(slots_GL[0])
    found: dict[int, list[int]] = {}
    for number, (row, size) in enumerate(zip(slots_GL, sizes)):
        for place in range(size):
            found.setdefault(row[place], []).append(number * longest + place)
    here = [token in found for token in range(len(where))]
    read = [
        place < size and where[row[place]] == first_slot + number * longest + place
        for number, (row, size) in enumerate(zip(slots_GL, sizes))
        for place in range(longest)
    ]
    mask = lambda flags: None if all(flags) else torch.tensor(flags, device=device)[:, None, None]
    again = []
    for turn in range(1, max(map(len, found.values()))):
        pairs = [(token, slots[turn]) for token, slots in found.items() if len(slots) > turn]
        again.append(Again(*(torch.tensor(side, device=device) for side in zip(*pairs))))
    first = [found[token][0] if flag else 0 for token, flag in enumerate(here)]
    return Group(
        torch.tensor(slots_GL, device=device), sizes, torch.tensor(first, device=device), mask(here), mask(read), tuple(again)
    )  # fmt: skip


@lru_cache(maxsize=256)
def _layout(
    paths: tuple[Path, ...], width: int, round_to: int
) -> tuple[list[tuple[list[list[int]], tuple[int, ...]]], list[int]]:
    """([(slots of each path, their lengths) for each group], the slot that each token's output is read from)."""
    tokens = [[place for start, length in path for place in range(start, start + length)] for path in paths]
    where, groups, used = [-1] * width, [], 0
    longest_first = sorted(((number, len(one)) for number, one in enumerate(tokens)), key=lambda item: -item[1])
    for members in group_by_length(longest_first):
        longest = math.ceil(members[0][1] / round_to) * round_to
        slots = [tokens[number] + [tokens[number][0]] * (longest - length) for number, length in members]
        for row, (number, _) in enumerate(members):
            for place, token in enumerate(tokens[number]):
                if where[token] < 0:
                    where[token] = used + row * longest + place
        groups.append((slots, tuple(length for _, length in members)))
        used += len(members) * longest
    return groups, [max(slot, 0) for slot in where]


def group_by_length(longest_first: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Cut (number, length) pairs, longest first, where padding the rest up would cost more than one more call."""
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

    Where there are more keys than queries, the first are a prefix that `documents` already counts (`Documents.behind`).
    Errors: ValueError for branches that would see ahead.
    """
    causal = getattr(module, "is_causal", True)
    if not causal and documents.branches:
        raise ValueError("documents that share tokens need causal attention: the shared tokens would see every branch")
    prefix = key_BKTD.shape[2] - query_BHTD.shape[2]
    query_BHTD = F.pad(query_BHTD, (0, 0, prefix, 0)) if prefix else query_BHTD
    tokens = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query_BHTD, key_BKTD, value_BKTD)]
    scale = scaling if scaling is not None else query_BHTD.shape[-1] ** -0.5
    outputs = []
    for group in documents.groups:
        q, k, v = (_Gather.apply(tensor, group) for tensor in tokens)
        mask = _mask(group, causal, sliding_window)
        outputs.append(_attend(q, k, v, mask, scale, softcap, dropout).flatten(0, 1))
    slots = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    output = _Scatter.apply(slots, documents)
    return output.view(query_BHTD.shape[0], query_BHTD.shape[2], *output.shape[1:])[:, prefix:], None


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


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    """Attend with q [G, L, H, D], k and v [G, L, K, D]; returns [G, L, H, D]. Heads that share a key are folded together."""
    if softcap is None and (q.device.type != "cpu" or q.shape[1] > LONGEST_BY_MATMUL):
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=True
        )  # fmt: skip
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
    weights = F.dropout(weights, dropout) if dropout else weights
    mixed = weights @ v.transpose(1, 2)
    return (
        mixed.view(num, k.shape[2], shared, length, width).permute(0, 3, 1, 2, 4).reshape(num, length, num_heads, width)
    )


class _Gather(torch.autograd.Function):
    """Tokens to slots. The way back is a gather for each time that a token stands there: deterministic, no atomic adds."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return tokens.index_select(0, group.slots_GL.flatten()).view(*group.slots_GL.shape, *tokens.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        group, slots = ctx.group, gradients[0].flatten(0, 1)
        gradient = slots.index_select(0, group.slot_of_token_T)
        gradient = gradient if group.token_here_T11 is None else gradient * group.token_here_T11
        for again in group.again:
            more = gradient.index_select(0, again.tokens_R) + slots.index_select(0, again.slots_R)
            gradient = gradient.index_copy(0, again.tokens_R, more)
        return gradient, None


class _Scatter(torch.autograd.Function):
    """Slots back to tokens. A slot that nobody reads, such as padding, gets no gradient."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, documents: Documents) -> Tensor:
        ctx.documents = documents
        return slots.index_select(0, documents.where_T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        pieces = []
        for group in ctx.documents.groups:
            gradient = gradients[0].index_select(0, group.slots_GL.flatten())
            pieces.append(gradient if group.read_slot_S11 is None else gradient * group.read_slot_S11)
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
