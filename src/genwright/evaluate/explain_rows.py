"""Which training rows stand nearest to an answer: by what the model sees in them, and by what they would teach it.

Embedding: cosine of the mean last hidden states. Gradient: the dot product of two rows' gradients of the loss, over the adapter's
weights, or where there is none the last block's, and its cosine. A step along one row's gradient lowers the other's loss by
rate x dot, to first order (TracIn, Pruthi 2020, arXiv 2002.08484, at one checkpoint). Rows are ordered by the cosine: a dot
product alone prefers rows that are long or badly learned whatever is asked (Barshan 2020, arXiv 2003.11630).

Legend: T tokens, H width, P weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.evaluate.explain import Case
from genwright.models.attention import ordinary_attention
from genwright.models.surgery import layers_of


@dataclass(frozen=True)
class Lesson:
    """A training row as tokens; of a classifier, what follows is its class and `answer` is empty."""

    place: str
    text: str
    prompt: list[int]
    answer: list[int]
    target: int = -1


def weights_of(model: Any) -> list[torch.nn.Parameter]:
    """The adapter's weights where there is one, else the last block's."""
    adapted = [value for name, value in model.named_parameters() if "lora_" in name]
    return adapted or list(layers_of(model)[0][-1].parameters())


def loss_of(model: Any, row: Lesson, case: Case) -> Tensor:
    """The mean loss of the row's answer tokens, or of its class, as training has it."""
    if not row.answer:
        own = Case(model, case.tokenizer, row.prompt, [], row.target)
        return -own.score(own.embedded(torch.tensor([row.prompt])))[0]
    ids_T = torch.tensor([*row.prompt, *row.answer])
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, len(row.prompt) - 1 : -1]
    return F.cross_entropy(logits_TV.float(), ids_T[len(row.prompt) :])


def gradient_of(model: Any, row: Lesson, case: Case, weights: Sequence[torch.nn.Parameter]) -> Tensor:
    """The gradient of the row's loss, [P]."""
    with torch.enable_grad():
        parts = torch.autograd.grad(loss_of(model, row, case), weights, allow_unused=True)
    return torch.cat([torch.zeros(w.numel()) if g is None else g.flatten().float() for w, g in zip(weights, parts)])


@torch.no_grad()
def embedding_of(model: Any, row: Lesson) -> Tensor:
    """The mean of the last hidden states over the row's tokens, of length 1: [H]."""
    ids_1T = torch.tensor([[*row.prompt, *row.answer]])
    hidden_TH = model.base_model(input_ids=ids_1T).last_hidden_state[0].float()
    return F.normalize(hidden_TH.mean(0), dim=0)


def nearest_rows(case: Case, asked: Lesson, rows: Sequence[Lesson], most: int = 10) -> list[dict[str, Any]]:
    """The rows of highest gradient cosine to the answer, with their other likenesses; and the best by embedding besides."""
    model = case.model
    weights = weights_of(model)
    with lent(weights), ordinary_attention(model):
        own_P, own_H = gradient_of(model, asked, case, weights), embedding_of(model, asked)
        found = [_likeness(model, row, case, weights, own_P, own_H) for row in rows]
    by_gradient = sorted(found, key=lambda one: -one["gradient_cosine"])[:most]
    by_embedding = sorted(found, key=lambda one: -one["embedding_cosine"])[:most]
    return by_gradient + [one for one in by_embedding if one not in by_gradient]


STEP = 0.01
"""Length of the step by which a row is taught, as a share of the weights' own length."""
TAUGHT = 3
CHANCE = 8


def taught(case: Case, row: Lesson) -> float:
    """How much the score of the answer rises after one short step along the row's gradient; the weights are put back."""
    weights = weights_of(case.model)
    own_P = gradient_of(case.model, row, case, weights)
    size = STEP * float(torch.sqrt(sum((w.detach().float() ** 2).sum() for w in weights)))  # type: ignore[arg-type]
    before, kept = case.scores([case.prompt])[0], [w.detach().clone() for w in weights]
    step_P = own_P * (size / max(float(own_P.norm()), 1e-12))
    with torch.no_grad():
        for weight, part in zip(weights, step_P.split([w.numel() for w in weights])):
            weight.sub_(part.view_as(weight).to(weight.dtype))
        after = case.scores([case.prompt])[0]
        for weight, old in zip(weights, kept):
            weight.copy_(old)
    return after - before


def rows_faithfulness(
    case: Case, found: Sequence[dict[str, Any]], rows: Sequence[Lesson], seed: int = 0
) -> dict[str, Any]:
    """Whether rows called near would teach the answer: the mean rise of its score when the nearest are taught, and rows by chance.

    One step each, from the same weights. `gain` is how much better the nearest by that likeness are than chance.
    """
    by_place = {row.place: row for row in rows}
    drawn = random.Random(seed).sample(list(rows), min(CHANCE, len(rows)))
    with lent(weights_of(case.model)), ordinary_attention(case.model):
        rise = lambda chosen: sum(taught(case, row) for row in chosen) / len(chosen)
        chance = rise(drawn)
        nearest = {
            key: rise([by_place[one["place"]] for one in sorted(found, key=lambda one: -one[key])[:TAUGHT]])
            for key in ("gradient_cosine", "embedding_cosine")
        }
    return {"nearest": nearest, "chance": chance, "gain": {key: value - chance for key, value in nearest.items()}}


@contextmanager
def lent(weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Weights whose gradients are wanted for a while."""
    wanted = [parameter.requires_grad for parameter in weights]
    for parameter in weights:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, was in zip(weights, wanted):
            parameter.requires_grad_(was)


def _likeness(
    model: Any, row: Lesson, case: Case, weights: Sequence[torch.nn.Parameter], own_P: Tensor, own_H: Tensor
) -> dict[str, Any]:
    gradient_P = gradient_of(model, row, case, weights)
    return {
        "place": row.place, "text": row.text, "gradient_dot": float(gradient_P @ own_P),
        "gradient_cosine": float(F.cosine_similarity(gradient_P, own_P, dim=0)),
        "embedding_cosine": float(embedding_of(model, row) @ own_H),
    }  # fmt: skip
