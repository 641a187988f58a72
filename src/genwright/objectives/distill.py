"""Learning from a teacher's probabilities, stored beside the rows: its K likeliest tokens and what is left over.

The teacher runs once, before training. Sequence distillation (Kim 2016, arXiv 1606.07947) needs nothing from here: it is
instruction tuning on the teacher's answers.

Legend: N labels of a microbatch, V vocabulary, K stored tokens, C = K + 1 classes (K where K = V).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.models.families import logits_at
from genwright.objectives.language import ROUND_LABELS, model_inputs
from genwright.objectives.loss import Loss, Term, number


def with_the_rest(log_probs_NK: Tensor, vocabulary: int) -> Tensor:
    """K stored log-probabilities and the log of what they leave over, [N, C]; none left over counts as e^-87."""
    if log_probs_NK.shape[1] == vocabulary:
        return log_probs_NK
    rest_N1 = -torch.expm1(log_probs_NK.logsumexp(-1, keepdim=True))
    return torch.cat([log_probs_NK, rest_N1.clamp(min=torch.finfo(rest_N1.dtype).tiny).log()], dim=-1)


def student_classes(logits_NV: Tensor, ids_NK: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the given tokens, and of all others together, [N, C].

    The others are summed as they are, not as 1 - the given: a small rest keeps its digits and its gradient.
    """
    log_probs_NV = F.log_softmax(logits_NV / temperature, dim=-1)
    given_NK = log_probs_NV.gather(-1, ids_NK)
    if ids_NK.shape[1] == logits_NV.shape[1]:
        return given_NK
    rest_N = log_probs_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([given_NK, rest_N], dim=-1)


def divergence(teacher_NC: Tensor, student_NC: Tensor, beta: float) -> Tensor:
    """JSD_beta(p || q) = beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, [N]; both given as logs.

    Agarwal 2023, arXiv 2306.13649, eq. 1. Beta 0 stands for KL(p || q), 1 for KL(q || p): the limits of JSD_beta over beta
    and over 1 - beta. At 1/2 it is symmetric and at most ln 2.
    """
    if beta == 0:
        return _kl(teacher_NC, student_NC)
    if beta == 1:
        return _kl(student_NC, teacher_NC)
    mixed_NC = torch.logaddexp(teacher_NC + math.log(beta), student_NC + math.log1p(-beta))
    return beta * _kl(teacher_NC, mixed_NC) + (1 - beta) * _kl(student_NC, mixed_NC)


def _kl(p_NC: Tensor, q_NC: Tensor) -> Tensor:
    return (p_NC.exp() * (p_NC - q_NC)).sum(-1)


@dataclass(frozen=True)
class Distill:
    """loss = T^2 KL(teacher / T || student / T), a mean over learned tokens   (Hinton 2015, arXiv 1503.02531).

    Columns: teacher_ids_NK (int64, K different tokens) and teacher_log_probs_NK = log softmax(teacher's logits / T), at
    the temperature of this objective. All tokens but these K are one class, so the loss is a divergence: 0, with gradient
    0, when the student agrees on the K tokens and the rest, and never more than the KL over all V, which it equals at
    K = V. `beta` chooses another divergence: see `divergence`.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat", "labelled")
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "answers"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("teacher_ids_NK", "teacher_log_probs_NK")

    temperature: float = 1.0
    """T; above 1 the teacher's unlikely tokens weigh more."""

    beta: float = 0.0
    """0: forward KL; 1: reverse KL; between: generalised Jensen-Shannon divergence."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        if not self.temperature > 0:
            raise RecipeError(
                "adapt.distillation.temperature is out of range.", wanted="above 0", found=str(self.temperature)
            )
        if not 0 <= self.beta <= 1:
            raise RecipeError("adapt.distillation.beta is out of range.", wanted="from 0 to 1", found=str(self.beta))

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per learned token."""
        ids_NK, num_labels = batch.columns["teacher_ids_NK"], batch.labels_N.numel()
        positions_N = F.pad(batch.positions_N, (0, -num_labels % ROUND_LABELS))
        logits_NV = logits_at(model, model_inputs(batch), positions_N)[:num_labels]
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        teacher_NC = with_the_rest(batch.columns["teacher_log_probs_NK"].to(logits_NV.dtype), logits_NV.shape[1])
        losses_N = divergence(teacher_NC, student_classes(logits_NV, ids_NK, self.temperature), self.beta)
        return Loss({"divergence": Term(self.temperature**2 * losses_N.sum(), number(num_labels, losses_N))})
