"""Forgetting: some rows are marked to be forgotten, others to be kept, and each kind has its own term and its own count.

Every loss is a sum over a sequence's own tokens, so neither padding nor the other rows of a batch can change it. Column
forget_D is 1 for a sequence to forget and 0 for one to keep; the step's counts are "forget_tokens", "retain_tokens" and
"forget_documents". What was forgotten in bf16 can come back in int4: test after quantising.

Legend: N labels of a microbatch, D its sequences, H hidden width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.objectives.language import label_log_probabilities, model_inputs, next_token_loss
from genwright.objectives.loss import Loss, Term, per_document


def npo_losses(ratio_D: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(-beta (lp - ref)), [D]; (2 / beta) ln 2 with slope 1 in lp at the start."""
    return -(2 / beta) * F.logsigmoid(-beta * ratio_D)


def generic_logits(base_NV: Tensor, reinforced_NV: Tensor, alpha: float = 5.0) -> Tensor:
    """v_base - alpha relu(v_reinforced - v_base), [N, V]   (Eldan 2023, arXiv 2310.02238, eq. 1).

    Tokens that training further on the text makes likelier are what the text alone taught; they are pushed down. The
    paper's target is the largest of these: the column generic_ids_N of `GenericTargets`.
    """
    return base_NV - alpha * F.relu(reinforced_NV - base_NV)


def direction(width: int, seed: int) -> Tensor:
    """RMU's u: uniform entries from the seed, scaled to norm 1, [H] float32 on the CPU."""
    u_H = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return u_H / u_H.norm()


@dataclass(frozen=True)
class GradientAscent:
    """loss = lp of the tokens to forget, a mean over them: next-token learning with the sign turned round.

    Jang 2022, arXiv 2210.01504, eq. 1. It has no floor, so it ruins the model if it goes on; it is the baseline. Rows to
    keep have no part in it.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "forget"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per token to forget."""
        return Loss({"forget": _mean_over(label_log_probabilities(model, batch), forget_at(batch), "forget_tokens")})


@dataclass(frozen=True)
class GradientDifference:
    """loss = mean lp of the tokens to forget + w mean NLL of the tokens to keep   (Liu 2022, arXiv 2203.12817)."""

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "forget"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    retain_weight: float = 1.0
    """The equation's w, of what is to be kept."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.gradient-difference.retain_weight", self.retain_weight)

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per token to forget and per token to keep."""
        log_probs_N, forget_N = label_log_probabilities(model, batch), forget_at(batch)
        return Loss({
            "forget": _mean_over(log_probs_N, forget_N, "forget_tokens"),
            "retain": _mean_over(-log_probs_N, 1 - forget_N, "retain_tokens", self.retain_weight),
        })  # fmt: skip


@dataclass(frozen=True)
class NPO:
    """loss_D = -(2 / beta) log sigmoid(-beta (lp - ref)) of a sequence to forget, + w mean NLL of the tokens to keep.

    Zhang 2024, arXiv 2404.05868, eq. 3; lp is the sum over the sequence's tokens, ref the same before unlearning (column
    reference_D). At the start the loss is (2 / beta) ln 2 and its gradient that of ascent; then it fades as lp falls.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "forget"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("reference_D",)

    beta: float = 0.1
    """The larger, the sooner a forgotten sequence is left in peace; towards 0 it is gradient ascent."""

    retain_weight: float = 1.0
    """The equation's w, of what is to be kept; 0: rows to keep have no part."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.npo.beta", self.beta)
        if self.retain_weight < 0:
            raise RecipeError(
                "adapt.npo.retain_weight is out of range.", wanted="at least 0", found=str(self.retain_weight)
            )

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per sequence to forget and per token to keep."""
        log_probs_N, forget_D = label_log_probabilities(model, batch), batch.columns["forget_D"]
        ratio_D = per_document(log_probs_N, batch) - batch.columns["reference_D"]
        terms = {"forget": _mean_over(npo_losses(ratio_D, self.beta), forget_D, "forget_documents")}
        if self.retain_weight:
            terms["retain"] = _mean_over(-log_probs_N, 1 - forget_at(batch), "retain_tokens", self.retain_weight)
        return Loss(terms)


@dataclass(frozen=True)
class RMU:
    """loss = mean (h - c u)^2 of tokens to forget + w mean (h - h_before)^2 of tokens to keep   (Li 2024, arXiv 2403.03218).

    h is the output of block `layer`, u a fixed direction of norm 1; both means are over tokens and width. h_before is what
    the model said before unlearning: column activations_NH. Tokens are the labels' positions. The whole body runs, but
    blocks behind `layer` have no gradient.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "forget"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("activations_NH",)

    layer: int = 7
    """Block whose output is moved, counted from 1; below the model's number of blocks."""

    steering: float = 6.5
    """The equation's c: how far from the origin forgotten tokens go."""

    retain_weight: float = 1200.0
    """The equation's w, of what is to be kept; the paper's, for a model of 7 B."""

    seed: int = 0
    """Of u."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.rmu.layer", self.layer)
        _positive("adapt.rmu.steering", self.steering)
        _positive("adapt.rmu.retain_weight", self.retain_weight)

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per token to forget and per token to keep. Errors: RecipeError for a missing layer."""
        hidden_NH, forget_N = hidden_at(model, batch, self.layer), forget_at(batch)
        target_H = self.steering * direction(hidden_NH.shape[1], self.seed).to(hidden_NH)
        away_N = (hidden_NH - target_H).square().mean(-1)
        moved_N = (hidden_NH - batch.columns["activations_NH"]).square().mean(-1)
        return Loss({
            "forget": _mean_over(away_N, forget_N, "forget_tokens"),
            "retain": _mean_over(moved_N, 1 - forget_N, "retain_tokens", self.retain_weight),
        })  # fmt: skip


@dataclass(frozen=True)
class GenericTargets:
    """loss = -1/N sum_t log p(g_t | x_<t): next-token learning towards what a model without the text would say.

    "Who is Harry Potter", Eldan 2023, arXiv 2310.02238. g_t is the largest of `generic_logits` (column generic_ids_N); in
    a row to keep it is the token itself. To learn their whole distribution instead, distill from them.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "forget"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ("generic_ids_N",)

    alpha: float = 5.0
    """How hard a token is pushed down that the text alone made likely; used where the targets are made."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        _positive("adapt.generic-targets.alpha", self.alpha)

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per token."""
        return next_token_loss(model, replace(batch, labels_N=batch.columns["generic_ids_N"]))


def forget_at(batch: Any) -> Tensor:
    """1 for each label of a sequence to forget, else 0: [N]."""
    mark_N: Tensor = batch.columns["forget_D"].index_select(0, batch.document_N)
    return mark_N


def hidden_at(model: Any, batch: Any, layer: int) -> Tensor:
    """The output of block `layer` (from 1) where labels are predicted, [N, H] float32. Errors: RecipeError.

    The last block is not offered: `transformers` hands out its output normalised.
    """
    blocks = model.config.get_text_config().num_hidden_layers
    if layer >= blocks:
        raise RecipeError(
            "adapt.rmu.layer lies behind the model's last block but one.",
            wanted=f"from 1 to {blocks - 1}",
            found=str(layer),
        )
    inputs, one = model_inputs(batch), batch.positions_N[:1]
    states = model(**inputs, output_hidden_states=True, logits_to_keep=one, use_cache=False).hidden_states
    hidden_NH: Tensor = states[layer].flatten(0, 1).index_select(0, batch.positions_N)
    return hidden_NH.to(torch.promote_types(hidden_NH.dtype, torch.float32))


def _mean_over(values: Tensor, chosen: Tensor, per: str, weight: float = 1.0) -> Term:
    """The chosen values' sum, to be divided by how many were chosen in the whole step."""
    return Term((values * chosen).sum(), chosen.sum().float(), weight, per)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise RecipeError(f"{name} is out of range.", wanted="above 0", found=str(value))
