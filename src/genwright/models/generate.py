"""Batched generation with a cache, and log-probabilities of given answers.

Rows are sorted by length, padded on the left, and leave the batch when they end; prompts yield logits at their last
token only. In float32 a row's answer does not depend on who shares its batch.

Legend: B rows of a batch, T tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from genwright.base.errors import BadRequest, DataError, RecipeError
from genwright.models.attention import ordinary_attention
from genwright.models.families import family_of, logits_at

Progress = Callable[[int, int], Any]
Until = Callable[[list[int]], bool]


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
                "These sampling settings make no sense.", found=str(self),
                wanted="max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1, top_k >= 0",
            )  # fmt: skip


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
    keep_end: bool = False,
    ends: set[int] | None = None,
    until: Until | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt, in order, without the one that ends it unless `keep_end`.

    An answer ends at an id of `ends` (None: `stop_ids`), or when `until` says so of its tokens so far.
    `progress(done, total)` counts rows. Errors, before anything is run: DataError for a prompt that is empty or leaves
    no room for an answer, RecipeError for a model that is no decoder.
    """
    context = context_of(model)
    _check(model, prompts, context)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    stops = stop_ids(model, tokenizer) if ends is None else ends
    with _answering(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            rows = [Row(prompts[i], i, min(sampling.max_new_tokens, context - len(prompts[i]))) for i in members]
            for index, answer in zip(members, _one_batch(model, rows, sampling, stops, keep_end, until)):
                answers[index] = answer
            if progress is not None:
                progress(min(start + batch_size, len(order)), len(order))
    return answers


@torch.no_grad()
def generate_targets(
    model: Any, tokenizer: Any, sources: Sequence[list[int]], sampling: Sampling, *, batch_size: int = 16,
    progress: Progress | None = None,
) -> list[list[int]]:  # fmt: skip
    """What an encoder-decoder writes to each source, in order, by `transformers`' own generation. Special tokens stay."""
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    answers: list[list[int]] = [[] for _ in sources]
    drawn: dict[str, Any] = {"do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        drawn |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    torch.manual_seed(sampling.seed)
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [sources[index] for index in members]}, return_tensors="pt")
        written = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=sampling.max_new_tokens,
            **drawn,
        )
        for index, row in zip(members, written.tolist()):
            answers[index] = row[1:]  # the first is the start token
        if progress is not None:
            progress(min(start + batch_size, len(order)), len(order))
    return answers


def context_of(model: Any) -> int:
    """The most tokens that prompt and answer may have together; a huge number where the configuration has no bound."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30


def _check(model: Any, prompts: Sequence[list[int]], context: int) -> None:
    if family_of(model.config) != "decoder":
        raise RecipeError(
            f"{type(model).__name__} does not continue a text.", wanted="a decoder", found=family_of(model.config),
            do="choose a decoder: `genwright models list`",
        )  # fmt: skip
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"Prompt {number + 1} is empty.", wanted="at least one token")
        if len(prompt) >= context:
            raise DataError(
                f"Prompt {number + 1} does not fit the model.",
                wanted=f"at most {context - 1} tokens, so that one can follow",
                found=f"{len(prompt)} tokens", do="shorten it, or show fewer examples (adapt.examples)",
            )  # fmt: skip


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """Evaluation mode and transformers' own attention, until it is over; the head gets its hidden states contiguous.

    The last token's states are a strided slice, for which torch multiplies row by row with the head's weights copied
    once a row where they are frozen: 0.9 GiB for 16 rows of SmolLM2.
    """
    was_training = model.training
    model.eval()
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        with ordinary_attention(model):
            yield
    finally:
        hook.remove()
        model.train(was_training)


@dataclass(frozen=True)
class Row:
    """One prompt, its number among all prompts, and how many tokens it may grow by."""

    prompt: list[int]
    number: int
    room: int


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends an answer: those of a text, and the usual end-of-turn names of the vocabulary."""
    vocabulary = tokenizer.get_vocab()
    return end_ids(model, tokenizer) | {vocabulary[name] for name in END_OF_TURN if name in vocabulary}


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends a text: the model's and the tokenizer's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return ids - {None}


END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>", "<|return|>")


ROUND_PROMPT = 16
"""Prompts are padded to a multiple of this, and a batch shrinks only by halves: a CPU compiles its products once per shape."""


def _one_batch(
    model: Any, rows: list[Row], sampling: Sampling, stops: set[int], keep_end: bool, until: Until | None
) -> list[list[int]]:
    """Padding stands on the left, masked, and positions do not count it. A row that stopped idles until half have."""
    longest = -(-max(len(row.prompt) for row in rows) // ROUND_PROMPT) * ROUND_PROMPT
    device = model.device
    ids_BT = torch.tensor([[0] * (longest - len(row.prompt)) + row.prompt for row in rows], device=device)
    lengths_B1 = torch.tensor([[len(row.prompt)] for row in rows], device=device)
    mask_BT = (torch.arange(longest, device=device) >= longest - lengths_B1).long()
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    generators = [torch.Generator().manual_seed((sampling.seed * 1_000_003 + row.number) % 2**63) for row in rows]
    cache = DynamicCache(config=model.config.get_text_config())
    answers: list[list[int]] = [[] for _ in rows]
    places, running = list(range(len(rows))), set(range(len(rows)))
    while True:
        logits_BV = model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        tokens = choose(logits_BV, sampling, [generators[row] for row in places])
        for row, token in zip(places, tokens):
            if row in running and (keep_end or token not in stops):
                answers[row].append(token)
            if token in stops or len(answers[row]) >= rows[row].room or (until is not None and until(answers[row])):
                running.discard(row)
        if not running:
            return answers
        if 2 * len(running) <= len(places):
            kept = sorted(range(len(places)), key=lambda place: places[place] not in running)[: len(places) // 2]
            cache.batch_select_indices(torch.tensor(kept, device=device))
            mask_BT, positions_BT = mask_BT[kept], positions_BT[kept]
            places, tokens = [places[place] for place in kept], [tokens[place] for place in kept]
        ids_BT = torch.tensor([[token] for token in tokens], device=device)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(places), 1)], dim=1)
        positions_BT = (positions_BT[:, -1:] + 1).clamp(max=context_of(model) - 1)  # idle rows may be at the end


def choose(logits_BV: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """The next token of each row."""
    if sampling.temperature == 0:
        return [int(token) for token in logits_BV.argmax(-1).tolist()]
    scaled_BV = logits_BV.float() / sampling.temperature
    if sampling.top_k:
        least = scaled_BV.topk(min(sampling.top_k, scaled_BV.shape[-1])).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least, float("-inf"))
    chances_BV = scaled_BV.softmax(-1)
    if sampling.top_p < 1:
        chances_BV = _nucleus(chances_BV, sampling.top_p)
    return [int(torch.multinomial(row, 1, generator=generator)) for row, generator in zip(chances_BV.cpu(), generators)]


def _nucleus(chances_BV: Tensor, top_p: float) -> Tensor:
    """Zero what lies outside the smallest set of likeliest tokens whose probability reaches top_p."""
    ordered_BV, index_BV = chances_BV.sort(-1, descending=True)
    outside_BV = ordered_BV.cumsum(-1) - ordered_BV >= top_p
    return torch.zeros_like(chances_BV).scatter(-1, index_BV, ordered_BV.masked_fill(outside_BV, 0.0))


@torch.no_grad()
def log_probabilities(
    model: Any, rows: Sequence[tuple[list[int], list[int]]], *, batch_size: int = 16
) -> list[float]:  # fmt: skip
    """sum_t log p(answer_t | prompt, answer_<t) of each (prompt, answer), in nats, from float32 log-softmax.

    Errors: DataError for an empty prompt, or a row longer than the context.
    """
    context = context_of(model)
    _check(model, [prompt for prompt, _ in rows], context)
    for number, (prompt, answer) in enumerate(rows):
        if len(prompt) + len(answer) > context:
            raise DataError(
                f"Row {number + 1} does not fit the model.", wanted=f"at most {context} tokens",
                found=f"{len(prompt)} of the prompt and {len(answer)} of the answer", do="shorten it",
            )  # fmt: skip
    order = sorted(range(len(rows)), key=lambda index: -sum(map(len, rows[index])))
    found = [0.0] * len(rows)
    with _answering(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            for index, value in zip(members, _log_probabilities(model, [rows[i] for i in members])):
                found[index] = value
    return found


def _log_probabilities(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    """Padded on the right: with causal attention a row never sees its padding."""
    if not any(answer for _, answer in rows):
        return [0.0] * len(rows)
    width, device = max(len(prompt) + len(answer) for prompt, answer in rows), model.device
    ids_BT = torch.tensor([[*p, *a, *[0] * (width - len(p) - len(a))] for p, a in rows], device=device)
    lengths_B1 = torch.tensor([[len(p) + len(a)] for p, a in rows], device=device)
    mask_BT = (torch.arange(width, device=device) < lengths_B1).long()
    before = [row * width + len(p) - 1 + step for row, (p, a) in enumerate(rows) for step in range(len(a))]
    labels_N = torch.tensor([token for _, answer in rows for token in answer], device=device)
    logits_NV = logits_at(model, {"input_ids": ids_BT, "attention_mask": mask_BT}, torch.tensor(before, device=device))
    each_N = -F.cross_entropy(logits_NV.float(), labels_N, reduction="none")
    return [float(part.sum()) for part in each_N.split([len(answer) for _, answer in rows])]
