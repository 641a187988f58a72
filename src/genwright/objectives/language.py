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

ROUND_TOKENS, ROUND_LABELS, ROUND_DOCUMENT = 32, 32, 16
"""Sizes are rounded up to these: a CPU compiles its products once per shape and keeps them, so a new shape every step
took twice the time and a gigabyte of memory. The padding costs about 3 % of the tokens and is read by nobody."""
IGNORED = -100


def model_inputs(batch: Any) -> dict[str, Any]:
    """What the model's forward takes: ids, positions and documents, all rows laid end to end as one.

    Documents never see each other, so rows of a batch need not be rows for the model.
    """
    ids_BT = batch.input_ids_BT
    padding = -ids_BT.numel() % ROUND_TOKENS
    return {
        "input_ids": F.pad(ids_BT.view(1, -1), (0, padding)),
        "position_ids": F.pad(batch.position_ids_BT.view(1, -1), (0, padding)),
        "documents": documents(batch.lengths, ids_BT.shape[1], ids_BT.device, padding=padding, round_to=ROUND_DOCUMENT),
    }


def next_token_loss(model: Any, batch: Any) -> Loss:
    """-sum over learned t of log p(x_t | x_<t), in nats, summed in float32; logits exist only where a token is learned."""
    num_labels = batch.labels_N.numel()
    padding = -num_labels % ROUND_LABELS
    logits_NV = logits_at(model, model_inputs(batch), F.pad(batch.positions_N, (0, padding)))
    labels_N = F.pad(batch.labels_N, (0, padding), value=IGNORED)
    total = F.cross_entropy(logits_NV.float(), labels_N, reduction="sum", ignore_index=IGNORED)
    return Loss({"tokens": Term(total, torch.full((), float(num_labels), device=total.device))})


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
