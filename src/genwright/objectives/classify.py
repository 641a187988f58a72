"""Classes of texts and of tokens: cross-entropy over a head of C classes.

Legend: B rows, T tokens of a row, D sequences, N tokens with a tag, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from genwright.models.attention import documents
from genwright.models.families import family_of, scores_at, tags_at
from genwright.objectives.language import model_inputs
from genwright.objectives.loss import Loss, Term, number


def class_scores(model: Any, batch: Any) -> Tensor:
    """[D, C], float32. A decoder's sequences lie end to end; an encoder's stand in rows, which its head pools itself."""
    if family_of(model.config) == "decoder":
        return scores_at(model, model_inputs(batch), batch.positions_N)
    return scores_at(model, rows_of(batch), batch.positions_N)


def rows_of(batch: Any) -> dict[str, Any]:
    """What a model is given that must see rows as rows: one document each, padded on the right."""
    ids_BT = batch.input_ids_BT
    return {
        "input_ids": ids_BT, "position_ids": batch.position_ids_BT,
        "documents": documents(batch.lengths, ids_BT.shape[1], ids_BT.device),
    }  # fmt: skip


@dataclass(frozen=True)
class Classification:
    """loss = -1/D sum_d log softmax(s_d)[y_d], with s_d the head's scores of text d   (softmax regression on the body's output).

    Worked by hand: equal scores over C = 3 classes give ln 3 = 1.0986.
    """

    rows: ClassVar[tuple[str, ...]] = ("labelled",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "classes"
    head: ClassVar[str] = "classes"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        total = F.cross_entropy(class_scores(model, batch), batch.labels_N, reduction="sum")
        return Loss({"classes": Term(total, number(batch.labels_N.numel(), total))})


@dataclass(frozen=True)
class TokenClassification:
    """loss = -1/N sum_t log softmax(s_t)[y_t] over the first token of each word   (Devlin 2018, section 5.3)."""

    rows: ClassVar[tuple[str, ...]] = ("tagged",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "tags"
    head: ClassVar[str] = "tags"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        scores_NC = tags_at(model, model_inputs(batch), batch.positions_N).float()
        total = F.cross_entropy(scores_NC, batch.labels_N, reduction="sum")
        return Loss({"tags": Term(total, number(batch.labels_N.numel(), total))})
