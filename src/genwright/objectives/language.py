"""Next-token objectives. Both are one equation; they differ in the tokens that a row offers for learning.

Legend: B rows, T tokens of a row, N learned tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from genwright.models.attention import documents
from genwright.models.families import logits_at
from genwright.objectives.loss import Loss, Term


def model_inputs(batch: Any) -> dict[str, Any]:
    """What the model's forward takes: ids, positions and documents, all rows laid end to end as one.

    Documents never see each other, so rows of a batch need not be rows for the model; padding stays where it lies and
    nobody attends to it.
    """
    ids_BT = batch.input_ids_BT
    return {
        "input_ids": ids_BT.view(1, -1),
        "position_ids": batch.position_ids_BT.view(1, -1),
        "documents": documents(batch.lengths, ids_BT.shape[1], ids_BT.device),
    }


def next_token_loss(model: Any, batch: Any) -> Loss:
    """-sum over learned t of log p(x_t | x_<t), in nats, summed in float32; logits exist only where a token is learned."""
    logits_NV = logits_at(model, model_inputs(batch), batch.positions_N)
    total = F.cross_entropy(logits_NV.float(), batch.labels_N, reduction="sum")
    count = torch.full((), batch.labels_N.numel(), dtype=torch.float32, device=total.device)
    return Loss({"tokens": Term(total, count)})


@dataclass(frozen=True)
class Causal:
    """loss = -1/N sum_t log p(x_t | x_<t) over every token of a text but its first   (Radford 2018, eq. 1).

    Worked by hand: a model that gives every token of V = 4 the same probability has loss ln 4 = 1.3863.
    """

    rows: ClassVar[tuple[str, ...]] = ("text",)
    couples_rows: ClassVar[bool] = False

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)


@dataclass(frozen=True)
class Instruction:
    """loss = -1/N sum_{t in answers} log p(x_t | x_<t): the assistant's turns and their ends, not the prompts.

    Ouyang 2022 (arXiv 2203.02155), section 3.5, with the loss on the demonstrations' answers only. The token that ends
    a turn is learned too, also where the tokenizer uses the same id for padding.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)
