"""What stands on the body where it is not the language head, and the loss that is taken of it: as our own objectives take it.

Classes and scores are read once a sequence, tags at every token, embeddings are the mean of a sequence; a value head reads what the
language head reads, beside it. A head made anew is float32 and trained whatever else is; softmax and sums are float32.

Legend: B rows, T tokens, H width, C classes, D sequences, P pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genwright.catalogue.parts import OBJECTIVES
from genwright.models.families import FRESH, Head, family_of
from genwright.plan.traced.adapters import hidden_of
from genwright.plan.traced.setup import ALSO, PAIRED, Setup

CLASSES = ("0", "1")
"""A setup does not say how many classes its data have; their weights are a thousandth of a body's."""


def head_of(objective: str) -> Head:
    """As the objective's own class says; other frameworks' objectives compare answers."""
    kind = "language" if objective in ALSO else OBJECTIVES[objective].head
    return Head(kind, CLASSES if kind in ("classes", "tags") else ())


def train_heads_(model: Any) -> None:
    """Train what the base model lacks, whatever the adapter trains."""
    names = (*getattr(model, "genwright_heads", ()), *(["value_head"] if hasattr(model, "value_head") else []))
    for parameter in (one for name in names for one in model.get_submodule(name).parameters()):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def read(model: Any, head: Head, inputs: dict[str, Tensor]) -> Tensor:
    """The body's states [B, T, H]; of an encoder with classes, whose head pools its rows itself, the scores [D, C]."""
    if head.kind in ("classes", "score") and family_of(model.config) == "encoder":
        scores: Tensor = model(**inputs).logits
        return scores
    return hidden_of(model, inputs)


def loss_at(model: Any, head: Head, read_of_it: Tensor, setup: Setup) -> Tensor:
    """The loss of what `read` gave."""
    if head.kind == "embedding":
        return _of_pairs(read_of_it)
    if head.kind == "tags":
        states_NH = getattr(model, "dropout", nn.Identity())(read_of_it).flatten(0, 1)
        everywhere = torch.zeros(states_NH.shape[0], dtype=torch.long)
        return _cross_entropy(_fresh(model)(states_NH.index_select(0, everywhere)[None])[0].float())
    scores_DC = read_of_it.float() if read_of_it.ndim == 2 else _at_ends(model, read_of_it).float()
    if head.kind == "score" and setup.objective in PAIRED:
        return -F.logsigmoid(scores_DC[0::2] - scores_DC[1::2]).sum()
    return _cross_entropy(scores_DC)


def value_at(model: Any, states_BTH: Tensor) -> Tensor:
    """The values' part of the loss, beside the tokens'."""
    return torch.as_tensor(model.value_head(states_BTH.float()).square().sum())


def _fresh(model: Any) -> nn.Module:
    return next(module for name, module in model.named_modules() if name.rpartition(".")[2] in FRESH["tags"])


def _at_ends(model: Any, states_BTH: Tensor) -> Tensor:
    ends_D = torch.zeros(states_BTH.shape[0], dtype=torch.long)
    states_DH = states_BTH.flatten(0, 1).index_select(0, ends_D)
    return torch.as_tensor(_fresh(model)(states_DH.float()))


def _cross_entropy(scores: Tensor) -> Tensor:
    return F.cross_entropy(scores, torch.zeros(scores.shape[0], dtype=torch.long), reduction="sum")


def _of_pairs(states_BTH: Tensor) -> Tensor:
    """Each answer of the batch but its own is a wrong one for a query."""
    wide_NH = states_BTH.flatten(0, 1).float()
    owner_N = torch.zeros(wide_NH.shape[0], dtype=torch.long)
    sums_DH = F.normalize(
        wide_NH.new_zeros(states_BTH.shape[0] + 1, wide_NH.shape[1]).index_add(0, owner_N, wide_NH)[:-1], dim=-1
    )
    query_PH, answer_PH = sums_DH.view(-1, 2, wide_NH.shape[1]).unbind(1)
    return _cross_entropy(query_PH @ answer_PH.T / 0.05)
