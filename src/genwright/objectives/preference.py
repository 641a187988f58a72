"""Learning from judged answers: pairs (DPO, ORPO, a reward model) or single answers called good or bad (KTO).

The pure functions take log-probabilities of whole answers and give one loss per pair or per answer; the objectives read
the log-probabilities from the model, and the reference's from a column, so no second model is in memory.

Legend: N labels of a microbatch, D its sequences, P its pairs. Sequence 2i is the chosen answer of pair i, 2i + 1 the
rejected one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.models.families import scores_at
from genwright.objectives.language import label_log_probabilities, model_inputs
from genwright.objectives.loss import Loss, Term, number, per_document, tokens_per_document


def sigmoid_losses(margin_P: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m), [P]; m is the chosen's log-ratio minus the rejected's."""
    x_P = beta * margin_P
    return -(1 - label_smoothing) * F.logsigmoid(x_P) - label_smoothing * F.logsigmoid(-x_P)


def ipo_losses(margin_P: Tensor, beta: float) -> Tensor:
    """(m - 1 / (2 beta))^2, [P]; m is the difference of log-ratios per token."""
    return (margin_P - 1 / (2 * beta)) ** 2


def kto_losses(ratio_D: Tensor, desirable_D: Tensor, beta: float, desirable: float, undesirable: float) -> Tensor:
    """The loss of each sequence, [D]; 0 for a mismatched one, which only moves z. See `KTO` for the equation."""
    mismatched_D = (desirable_D < 0).to(ratio_D.dtype)
    z = ((ratio_D.detach() * mismatched_D).sum() / mismatched_D.sum().clamp(min=1)).clamp(min=0)
    good_D = desirable * torch.sigmoid(-beta * (ratio_D - z))
    bad_D = undesirable * torch.sigmoid(beta * (ratio_D - z))
    return torch.where(desirable_D > 0, good_D, bad_D) * (1 - mismatched_D)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, to full precision at both ends; x within rounding of 0 counts as -eps, so it stays finite.

    Maechler 2012, "Accurately computing log(1 - exp(-|a|))": two forms, changed over at x = -ln 2.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -math.log(2)
    # Each form sees only arguments of its own half: where() would turn the other's infinite slope into NaN.
    half = torch.full_like(x, -math.log(2))
    close, far = torch.where(near, x, half), torch.where(near, half, x)
    return torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(far)))


def odds_losses(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """-log sigmoid(log odds(chosen) - log odds(rejected)), [P]; log odds(p) = log p - log(1 - p), from log p per token."""
    log_odds_P = (chosen_P - log1mexp(chosen_P)) - (rejected_P - log1mexp(rejected_P))
    return -F.logsigmoid(log_odds_P)


def reward_losses(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected), [P]."""
    return -F.logsigmoid(chosen_P - rejected_P)


@dataclass(frozen=True)
class DPO:
    """loss_P = -log sigmoid(beta ((lp - ref)_chosen - (lp - ref)_rejected))   (Rafailov 2023, arXiv 2305.18290, eq. 7).

    lp is the sum over an answer's tokens, not their mean. `loss = "ipo"` is (m - 1 / (2 beta))^2 (Azar 2023, arXiv
    2310.12036, eq. 17); its m takes each answer's log-ratio per token, as the paper's authors told TRL they had done.
    Worked by hand: a model that is its own reference has loss ln 2 = 0.6931; a margin of 10 at beta 0.1 has 0.3133.
    """

    rows: ClassVar[tuple[str, ...]] = ("preference",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "pairs"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("reference_D",)

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    label_smoothing: float = 0.0
    """Chance that a pair was judged the wrong way round (cDPO, Mitchell 2023); from 0 to below 0.5, with "sigmoid" only."""

    loss: str = "sigmoid"
    """"sigmoid" or "ipo"."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range, or one without effect."""
        _positive("adapt.dpo.beta", self.beta)
        if self.loss not in ("sigmoid", "ipo"):
            raise RecipeError("adapt.dpo.loss names no loss.", wanted='"sigmoid" or "ipo"', found=f'"{self.loss}"')
        if not 0 <= self.label_smoothing < 0.5:
            raise RecipeError(
                "adapt.dpo.label_smoothing is out of range.",
                wanted="at least 0, below 0.5",
                found=str(self.label_smoothing),
            )
        if self.loss == "ipo" and self.label_smoothing:
            raise RecipeError(
                "adapt.dpo.label_smoothing has no effect on IPO.", found=str(self.label_smoothing), do="leave it at 0"
            )

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per pair."""
        ratio_D = per_document(label_log_probabilities(model, batch), batch) - batch.columns["reference_D"]
        if self.loss == "ipo":
            ratio_D = ratio_D / tokens_per_document(batch).clamp(min=1)
        margin_P = ratio_D[0::2] - ratio_D[1::2]
        if self.loss == "ipo":
            return Loss({"preference": _per_pair(ipo_losses(margin_P, self.beta))})
        return Loss({"preference": _per_pair(sigmoid_losses(margin_P, self.beta, self.label_smoothing))})


@dataclass(frozen=True)
class KTO:
    """loss_D = w (1 - sigmoid(beta (d - z))) for a wanted answer, w' (1 - sigmoid(beta (z - d))) for an unwanted one.

    Ethayarajh 2024, arXiv 2402.01306, eq. 8; d = lp - ref of the answer, z = max(0, mean of d over mismatched answers:
    a prompt with another prompt's answer), without gradient. Column desirable_D: 1 wanted, 0 unwanted, -1 mismatched,
    which is used for z only. The mean is over the judged answers (count "judged"). z is a mean over the microbatch, so
    rows are coupled: no accumulation, and on several processes each has its own z.
    Worked by hand: a model that is its own reference has loss 1/2.
    """

    rows: ClassVar[tuple[str, ...]] = ("preference",)
    couples_rows: ClassVar[bool] = True
    layout: ClassVar[str] = "judged"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("reference_D",)

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    desirable_weight: float = 1.0
    """The equation's w, of wanted answers; raise it where they are the fewer."""

    undesirable_weight: float = 1.0
    """The equation's w', of unwanted answers."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.kto.beta", self.beta)
        _positive("adapt.kto.desirable_weight", self.desirable_weight)
        _positive("adapt.kto.undesirable_weight", self.undesirable_weight)

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per judged answer."""
        desirable_D = batch.columns["desirable_D"]
        ratio_D = per_document(label_log_probabilities(model, batch), batch) - batch.columns["reference_D"]
        losses_D = kto_losses(ratio_D, desirable_D, self.beta, self.desirable_weight, self.undesirable_weight)
        return Loss({"judgement": Term(losses_D.sum(), (desirable_D >= 0).sum().float(), per="judged")})


@dataclass(frozen=True)
class ORPO:
    """loss = NLL(chosen) - lambda log sigmoid(log odds_chosen - log odds_rejected)   (Hong 2024, arXiv 2403.07691, eq. 6).

    odds = p / (1 - p), where log p is the mean over the answer's tokens. No reference. The NLL is a mean over the chosen
    answers' tokens (count "chosen_tokens"), the prompt not among them (TRL's ORPO learns the prompt too).
    """

    rows: ClassVar[tuple[str, ...]] = ("preference",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "pairs"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    odds_weight: float = 0.1
    """The equation's lambda."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.orpo.odds_weight", self.odds_weight)

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch: the chosen answers' tokens, and the pairs."""
        sum_D = per_document(label_log_probabilities(model, batch), batch)
        tokens_D = tokens_per_document(batch)
        mean_D = sum_D / tokens_D.clamp(min=1)
        odds = _per_pair(odds_losses(mean_D[0::2], mean_D[1::2]), weight=self.odds_weight)
        return Loss({"chosen": Term(-sum_D[0::2].sum(), tokens_D[0::2].sum(), per="chosen_tokens"), "odds": odds})


@dataclass(frozen=True)
class Reward:
    """loss_P = -log sigmoid(r_chosen - r_rejected) + c (r_chosen + r_rejected)^2   (Bradley-Terry; arXiv 2203.02155, eq. 1).

    r is read at the last token of each sequence (column last_D, flat positions). The difference fixes r but for a
    constant; the second part (Eisenstein 2023, arXiv 2312.09244) keeps r around zero.
    Worked by hand: a head of zeros has loss ln 2 = 0.6931.
    """

    rows: ClassVar[tuple[str, ...]] = ("preference",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "pairs"
    head: ClassVar[str] = "score"
    columns: ClassVar[tuple[str, ...]] = ()

    centering: float = 0.0
    """The equation's c; 0.01 is usual where scores of different prompts are compared."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        if self.centering < 0:
            raise RecipeError("adapt.reward.centering is out of range.", wanted="at least 0", found=str(self.centering))

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per pair."""
        score_D = scores_at(model, model_inputs(batch), batch.columns["last_D"]).squeeze(-1)
        chosen_P, rejected_P = score_D[0::2], score_D[1::2]
        terms = {"preference": _per_pair(reward_losses(chosen_P, rejected_P))}
        if self.centering:
            terms["centre"] = _per_pair((chosen_P + rejected_P) ** 2, weight=self.centering)
        return Loss(terms)


def _per_pair(losses_P: Tensor, weight: float = 1.0) -> Term:
    return Term(losses_P.sum(), number(losses_P.numel(), losses_P), weight, per="pairs")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise RecipeError(f"{name} is out of range.", wanted="above 0", found=str(value))
