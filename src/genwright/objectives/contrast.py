"""Texts to vectors such that those that belong together lie together.

Legend: D sequences of a microbatch (2P: query and answer in turn), P pairs, H width, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.models.attention import paths_of, tokens_of
from genwright.models.families import hidden_of
from genwright.objectives.language import model_inputs
from genwright.objectives.loss import Loss, Term, number


def embeddings(model: Any, batch: Any) -> Tensor:
    """The mean of the last hidden states over each sequence, scaled to length 1: [D, H], float32."""
    hidden_TH = hidden_of(model, model_inputs(batch)).float()
    owner_T = torch.tensor(owners(batch.lengths, batch.input_ids_BT.shape[1], hidden_TH.shape[0], batch.num_documents))
    sums = hidden_TH.new_zeros(batch.num_documents + 1, hidden_TH.shape[1])
    sums = sums.index_add(0, owner_T.to(hidden_TH.device), hidden_TH)[:-1]
    return F.normalize(sums, dim=-1)  # the length of a sum and of a mean differ by a factor that this takes out


def owners(lengths: Any, width: int, total: int, padding: int) -> list[int]:
    """For each flat token its sequence; `padding` for those of none."""
    owner, sequence = [padding] * total, 0
    for row, members in enumerate(lengths):
        start = row * width
        for document in members:
            for path in paths_of(document, start):
                for first, length in path:
                    owner[first : first + length] = [sequence] * length
                sequence += 1
            start += tokens_of(document)
    return owner


@dataclass(frozen=True)
class Contrastive:
    """loss = -1/P sum_i log softmax_j(cos(q_i, a_j) / temperature)[i]   (Henderson 2017, arXiv 1705.00652, section 4.4).

    Every other answer of the batch is a wrong one, so a batch cannot be accumulated from smaller ones.
    Worked by hand: P pairs with one and the same vector give ln P.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat", "labelled", "preference")
    couples_rows: ClassVar[bool] = True
    layout: ClassVar[str] = "texts"
    head: ClassVar[str] = "embedding"
    columns: ClassVar[tuple[str, ...]] = ()

    temperature: float = 0.05
    """Cosines are divided by this: 20 times the cosine, as sentence-transformers scales them."""

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, which must be the whole step."""
        query_PH, answer_PH = embeddings(model, batch).view(-1, 2, model.config.get_text_config().hidden_size).unbind(1)
        cosine_PP = query_PH @ answer_PH.T
        right_P = torch.arange(cosine_PP.shape[0], device=cosine_PP.device)
        total = F.cross_entropy(cosine_PP / self.temperature, right_P, reduction="sum")
        return Loss({"pairs": Term(total, number(cosine_PP.shape[0], total), per="pairs")})
