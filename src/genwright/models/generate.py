"""Batched generation with a cache, and log-probabilities of given answers.

Rows are sorted by length, padded on the left, and leave the batch when they end; prompts yield logits at their last
token only. In float32 a row's answer does not depend on who shares its batch.

Legend: B rows of a batch, T tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from genwright.base.errors import BadRequest, DataError
from genwright.models.attention import ordinary_attention

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 is greedy; above, tokens are drawn from softmax(logits / temperature)."""
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together hold this probability (Holtzman 2020)."""
    top_k: int = 0
    """Draw only from the k likeliest tokens; 0 is all."""
    seed: int = 0
    """A row's draws depend on this and on its number, not on its neighbours."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise BadRequest(
                "These sampling settings make no sense.", wanted="max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1, top_k >= 0",
                found=str(self),
            )  # fmt: skip


@torch.no_grad()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], sampling: Sampling, *, batch_size: int = 16, progress: Progress | None = None
) -> list[list[int]]:  # fmt: skip
    """The new tokens of each prompt, in order, without the one that ends it. Errors: DataError for a prompt too long."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts):
        if not prompt or (context and len(prompt) + 1 > context):
            raise DataError(
                f"Prompt {number + 1} does not fit the model.", wanted=f"1 to {context} tokens with its answer",
                found=f"{len(prompt)} tokens", do="shorten it, or show fewer examples (adapt.examples)",
            )  # fmt: skip
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    stops = stop_ids(model, tokenizer)
    was_training = model.training
    model.eval()
    with ordinary_attention(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            for index, answer in zip(members, _one_batch(model, [prompts[i] for i in members], members, sampling, stops, context)):
                answers[index] = answer
            if progress is not None:
                progress(min(start + batch_size, len(order)), len(order))
    model.train(was_training)
    return answers


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends an answer: the model's, the tokenizer's, and the usual end-of-turn names of its vocabulary."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    vocabulary = tokenizer.get_vocab()
    return (ids | {vocabulary.get(name) for name in END_OF_TURN}) - {None}


END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>", "<|return|>")


def _one_batch(
    model: Any, prompts: list[list[int]], numbers: list[int], sampling: Sampling, stops: set[int], context: int | None
) -> list[list[int]]:  # fmt: skip
    longest = max(map(len, prompts))
    steps = min(sampling.max_new_tokens, context - longest) if context else sampling.max_new_tokens
    ids_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    generators = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + number) for number in numbers]
    cache = DynamicCache(config=model.config.get_text_config())
    answers: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    for _ in range(max(1, steps)):
        logits_BV = model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits[:, -1]  # fmt: skip
        tokens = choose(logits_BV, sampling, [generators[row] for row in active])
        kept = [place for place, token in enumerate(tokens) if token not in stops]
        for place in kept:
            answers[active[place]].append(tokens[place])
        if not kept:
            break
        if len(kept) < len(active):
            cache.batch_select_indices(torch.tensor(kept))
            mask_BT, positions_BT = mask_BT[kept], positions_BT[kept]
        active = [active[place] for place in kept]
        ids_BT = torch.tensor([[tokens[place]] for place in kept])
        mask_BT = torch.cat([mask_BT, torch.ones(len(kept), 1, dtype=mask_BT.dtype)], dim=1)
        positions_BT = positions_BT[:, -1:] + 1
    return answers


def choose(logits_BV: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """The next token of each row."""
    if sampling.temperature == 0:
        return [int(token) for token in logits_BV.argmax(-1)]
    scaled_BV = logits_BV.float() / sampling.temperature
    if sampling.top_k:
        least = scaled_BV.topk(min(sampling.top_k, scaled_BV.shape[-1])).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least, float("-inf"))
    chances_BV = scaled_BV.softmax(-1)
    if sampling.top_p < 1:
        chances_BV = _nucleus(chances_BV, sampling.top_p)
    return [int(torch.multinomial(row, 1, generator=generator)) for row, generator in zip(chances_BV, generators)]


def _nucleus(chances_BV: Tensor, top_p: float) -> Tensor:
    """Zero what lies outside the smallest set of likeliest tokens whose probability reaches top_p."""
    ordered_BV, index_BV = chances_BV.sort(-1, descending=True)
    outside_BV = ordered_BV.cumsum(-1) - ordered_BV >= top_p
    return torch.zeros_like(chances_BV).scatter(-1, index_BV, ordered_BV.masked_fill(outside_BV, 0.0))


@torch.no_grad()
def log_probabilities(model: Any, rows: Sequence[tuple[list[int], list[int]]], *, batch_size: int = 16) -> list[float]:
    """sum_t log p(answer_t | prompt, answer_<t) of each (prompt, answer), in nats, from float32 log-softmax."""
    order = sorted(range(len(rows)), key=lambda index: -sum(map(len, rows[index])))
    found = [0.0] * len(rows)
    model.eval()
    with ordinary_attention(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            for index, value in zip(members, _log_probabilities(model, [rows[i] for i in members])):
                found[index] = value
    return found


def _log_probabilities(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    """Padded on the right: with causal attention a row never sees its padding."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids_BT = torch.tensor([[*prompt, *answer, *[0] * (width - len(prompt) - len(answer))] for prompt, answer in rows])
    mask_BT = torch.tensor([[int(place < len(p) + len(a)) for place in range(width)] for p, a in rows])
    first = min(len(prompt) for prompt, _ in rows) - 1
    logits = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=torch.arange(first, width)).logits
    values = []
    for row, (prompt, answer) in enumerate(rows):
        own = logits[row, len(prompt) - 1 - first : len(prompt) + len(answer) - 1 - first].float().log_softmax(-1)
        values.append(float(own.gather(-1, torch.tensor(answer)[:, None]).sum()))
    return values
