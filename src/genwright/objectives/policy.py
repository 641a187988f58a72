"""Learning from rewards of the model's own answers: GRPO and its variants, PPO.

Rollouts happen elsewhere. They hand over columns: what each token's log-probability was when it was sampled (old_N), how
much better than expected the answer or token was (advantage_D, advantage_N), and the reference's log-probabilities where
a KL is asked for. The functions that make those columns from rewards are here, beside the equations that use them.

Legend: N labels of a microbatch, D its sequences; P prompts, G answers of each; B answers, T tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.models.families import logits_and_values_at
from genwright.objectives.language import IGNORED, ROUND_LABELS, label_log_probabilities, model_inputs
from genwright.objectives.loss import Loss, Term, number, per_document, tokens_per_document

VARIANTS = ("grpo", "dapo", "dr_grpo", "gspo", "cispo")


def group_advantages(rewards_PG: Tensor, scale: str = "group", epsilon: float = 1e-4) -> Tensor:
    """A = (r - mean) / (std + epsilon) within each group, [P, G]   (Shao 2024, arXiv 2402.03300, section 4.1.2).

    std is the unbiased one and epsilon 1e-4, as in TRL: [1, 0, 0, 0] gives 1.4997, -0.4999 (verl: epsilon 1e-6). `scale`
    "none" leaves the division out (Dr. GRPO, arXiv 2503.20783). Equal rewards give exactly 0. An answer whose reward is
    NaN gets 0 and has no part in its group's mean; other groups never see it. A lone reward gets 0. Errors: RecipeError.
    """
    if scale not in ("group", "none"):
        raise RecipeError("scale names no way to scale advantages.", wanted='"group" or "none"', found=f'"{scale}"')
    known_PG = ~rewards_PG.isnan()
    count_P1 = known_PG.sum(1, keepdim=True)
    # Measured from the group's least: equal rewards are then exactly 0, where a mean of them may round.
    least_P1 = rewards_PG.masked_fill(~known_PG, torch.inf).amin(1, keepdim=True)
    above_PG = torch.where(known_PG, rewards_PG - least_P1, 0.0)
    centred_PG = torch.where(known_PG, above_PG - above_PG.sum(1, keepdim=True) / count_P1.clamp(min=1), 0.0)
    if scale == "none":
        return centred_PG
    std_P1 = (centred_PG.square().sum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)).sqrt()
    return centred_PG / (std_P1 + epsilon)


def k3(log_probs_N: Tensor, reference_N: Tensor) -> Tensor:
    """e^d - d - 1 with d = ref - lp: its value is unbiased for KL(policy || reference) on the policy's samples, never below 0.

    Schulman 2020, "Approximating KL divergence", k3. Exactly 0, with gradient 0, where both agree. Its slope on samples
    taken as given is that of KL(reference || policy): see `GRPO.corrected_kl`.
    """
    difference_N = reference_N - log_probs_N
    return torch.expm1(difference_N) - difference_N


def clipped_losses(ratio_N: Tensor, advantage_N: Tensor, low: float, high: float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A)   (Schulman 2017, arXiv 1707.06347, eq. 7)."""
    return -torch.minimum(ratio_N * advantage_N, ratio_N.clamp(1 - low, 1 + high) * advantage_N)


def cispo_losses(log_probs_N: Tensor, old_N: Tensor, advantage_N: Tensor, high: float) -> Tensor:
    """-sg(min(ratio, 1 + high)) A lp: every token keeps a gradient, none a large one   (arXiv 2506.13585, eq. 4 and 5).

    No lower bound, as the paper ran it. TRL's epsilon_high is the whole bound: its 5 is our 4.
    """
    weight_N = torch.exp(log_probs_N.detach() - old_N).clamp(max=1 + high)
    return -weight_N * advantage_N * log_probs_N


def clipped_value_losses(values_N: Tensor, old_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """1/2 max((v - R)^2, (v_clipped - R)^2); v_clipped stays within `clip` of the value at sampling."""
    near_N = old_N + (values_N - old_N).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_N - returns_N) ** 2, (near_N - returns_N) ** 2)


def kl_penalised_rewards(
    scores_B: Tensor, log_probs_BT: Tensor, reference_BT: Tensor, lengths_B: Tensor, kl_weight: float
) -> Tensor:
    """r_t = -kl_weight (lp_t - ref_t), and the answer's score on top at its last token; 0 behind it. [B, T].

    Ziegler 2019, arXiv 1909.08593, eq. 2. Every answer has at least one token.
    """
    place_T = torch.arange(log_probs_BT.shape[1], device=log_probs_BT.device)
    real_BT = place_T < lengths_B[:, None]
    last_BT = place_T == lengths_B[:, None] - 1
    penalty_BT = torch.where(real_BT, -kl_weight * (log_probs_BT - reference_BT), 0.0)
    return penalty_BT + torch.where(last_BT, scores_B[:, None], 0.0)


def gae(rewards_BT: Tensor, values_BT: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), [B, T]; A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma v_{t+1} - v_t, R = A + v.

    Schulman 2015, arXiv 1506.02438, eq. 16. The value behind the last token is 0. Rewards and values of padding on the
    right must be 0, which leaves all others as they are.
    """
    advantage_B = torch.zeros_like(rewards_BT[:, 0])
    following_B = torch.zeros_like(advantage_B)
    backwards = []
    for place in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, place] + gamma * following_B - values_BT[:, place]
        advantage_B = delta_B + gamma * lam * advantage_B
        following_B = values_BT[:, place]
        backwards.append(advantage_B)
    advantages_BT = torch.stack(backwards[::-1], dim=1)
    return advantages_BT, advantages_BT + values_BT


def whitened(values_BT: Tensor, real_BT: Tensor) -> Tensor:
    """(x - mean) / sqrt(unbiased variance + 1e-8) over the real tokens of all answers; 0 at the others."""
    count = real_BT.sum()
    mean = torch.where(real_BT, values_BT, 0.0).sum() / count
    centred_BT = torch.where(real_BT, values_BT - mean, 0.0)
    return centred_BT * torch.rsqrt(centred_BT.square().sum() / (count - 1).clamp(min=1) + 1e-8)


@dataclass(frozen=True)
class GRPO:
    """loss = -min(ratio A, clip(ratio) A) + beta KL, ratio = p / p_old of a token   (Shao 2024, arXiv 2402.03300, eq. 3).

    The variants differ in what the ratio is and in what a token's loss is divided by:
    "grpo": the answer's tokens, then the answers. "dapo": all tokens of the step (arXiv 2503.14476). "dr_grpo": a constant,
    `answer_tokens`, then the answers (arXiv 2503.20783). "gspo": the ratio is the geometric mean over the answer's tokens
    (arXiv 2507.18071); divided as "grpo"; wants epsilons near 3e-4. "cispo": see `cispo_losses`; divided as "dapo".
    On the first step after sampling the ratio is 1 and the KL 0, and the gradient is that of -A lp, which is not.
    Columns: old_N and advantage_D of the rollout; reference_N where beta is above 0.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "prompts"
    head: ClassVar[str] = "language"

    loss: str = "dapo"
    """"grpo", "dapo", "dr_grpo", "gspo" or "cispo"."""

    epsilon_low: float = 0.2
    """Below 1 - this the ratio is clipped; without effect, and refused but for its default, in "cispo"."""

    epsilon_high: float = 0.2
    """Above 1 + this the ratio is clipped."""

    beta: float = 0.0
    """Weight of the KL to the reference; 0 needs no reference."""

    corrected_kl: bool = True
    """Weigh k3 with the ratio: then its slope is that of KL(policy || reference) (arXiv 2512.02556, section 3.1), and the
    best policy is reference * exp(reward / beta). false: k3 as the GRPO paper has it, whose slope is that of
    KL(reference || policy)."""

    answer_tokens: int = 0
    """The most tokens of an answer: the constant of "dr_grpo", which needs it; 0 for the others."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range, or one without effect."""
        if self.loss not in VARIANTS:
            same = 'write loss = "dapo": under sums and counts of the whole step "bnpo" is the same'
            raise RecipeError(
                "adapt.grpo.loss names no loss.", wanted=", ".join(VARIANTS), found=self.loss, do=same if self.loss == "bnpo" else ""
            )  # fmt: skip
        if not (0 < self.epsilon_low <= 1 and self.epsilon_high > 0):
            raise RecipeError(
                "adapt.grpo.epsilon_low or epsilon_high is out of range.", wanted="0 < epsilon_low <= 1, epsilon_high above 0",
                found=f"{self.epsilon_low}, {self.epsilon_high}",
            )  # fmt: skip
        if self.loss == "cispo" and self.epsilon_low != GRPO.epsilon_low:
            raise RecipeError("adapt.grpo.epsilon_low has no effect on cispo.", do="leave it out")
        if self.beta < 0:
            raise RecipeError("adapt.grpo.beta is out of range.", wanted="at least 0", found=str(self.beta))
        if not self.corrected_kl and not self.beta:
            raise RecipeError(
                "adapt.grpo.corrected_kl has no effect without a KL.", do="leave it out, or set adapt.grpo.beta above 0"
            )
        if (self.loss == "dr_grpo") != (self.answer_tokens > 0):
            raise RecipeError(
                "adapt.grpo.answer_tokens is the constant of dr_grpo, and of it only.", wanted="above 0 with dr_grpo, else 0",
                found=f'{self.answer_tokens} with loss "{self.loss}"',
            )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """The reference is asked only where its KL counts."""
        return ("reference_N",) if self.beta else ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        log_probs_N = label_log_probabilities(model, batch)
        terms = {"policy": self._term(self.token_losses(log_probs_N, batch), batch)}
        if self.beta:
            terms["kl"] = self._term(self.token_kl(log_probs_N, batch), batch, weight=self.beta)
        return Loss(terms)

    def token_losses(self, log_probs_N: Tensor, batch: Any) -> Tensor:
        """The policy's loss at each token, [N], before anything is divided."""
        old_N, advantage_N = batch.columns["old_N"], batch.columns["advantage_D"].index_select(0, batch.document_N)
        if self.loss == "cispo":
            return cispo_losses(log_probs_N, old_N, advantage_N, self.epsilon_high)
        log_ratio_N = log_probs_N - old_N
        if self.loss == "gspo":
            mean_D = per_document(log_ratio_N, batch) / tokens_per_document(batch).clamp(min=1)
            log_ratio_N = mean_D.index_select(0, batch.document_N)
        return clipped_losses(log_ratio_N.exp(), advantage_N, self.epsilon_low, self.epsilon_high)

    def token_kl(self, log_probs_N: Tensor, batch: Any) -> Tensor:
        """The estimate of the KL to the reference at each token, [N]."""
        kl_N = k3(log_probs_N, batch.columns["reference_N"])
        return kl_N * (log_probs_N - batch.columns["old_N"]).exp() if self.corrected_kl else kl_N

    def _term(self, values_N: Tensor, batch: Any, weight: float = 1.0) -> Term:
        if self.loss in ("dapo", "cispo"):
            return Term(values_N.sum(), number(values_N.numel(), values_N), weight)
        sums_D = per_document(values_N, batch)
        tokens_D = self.answer_tokens if self.loss == "dr_grpo" else tokens_per_document(batch).clamp(min=1)
        return Term((sums_D / tokens_D).sum(), number(batch.num_documents, values_N), weight, per="documents")


@dataclass(frozen=True)
class PPO:
    """loss = -min(ratio A, clip(ratio) A) + w 1/2 max((v - R)^2, (v_clipped - R)^2)   (Schulman 2017, arXiv 1707.06347).

    RLHF of Ziegler 2019 (arXiv 1909.08593): the reward is a score at the answer's end and -kl_weight (lp - ref) at each
    token; advantages are GAE's, whitened over the round of rollouts. Both terms are means over the answers' tokens.
    Columns, of the rollout: old_N, old_value_N, and what `targets` makes of it: advantage_N, return_N.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "prompts"
    head: ClassVar[str] = "value"
    columns: ClassVar[tuple[str, ...]] = ("reference_N",)

    epsilon: float = 0.2
    """The ratio is clipped to 1 +- this."""

    value_clip: float = 0.2
    """A value counts no better than one this near to the value at sampling."""

    value_weight: float = 0.1
    """The equation's w, of the value's loss."""

    kl_weight: float = 0.05
    """What a nat of departure from the reference costs, in reward."""

    gamma: float = 1.0
    """Discount of a later reward, a token."""

    lam: float = 0.95
    """GAE's lambda: 0 trusts the value head, 1 the rewards."""

    def __post_init__(self) -> None:
        """Errors: RecipeError for a constant outside its range."""
        for name in ("epsilon", "value_clip"):
            if not getattr(self, name) > 0:
                raise RecipeError(
                    f"adapt.ppo.{name} is out of range.", wanted="above 0", found=str(getattr(self, name))
                )
        for name in ("value_weight", "kl_weight"):
            if getattr(self, name) < 0:
                raise RecipeError(
                    f"adapt.ppo.{name} is out of range.", wanted="at least 0", found=str(getattr(self, name))
                )
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(
                    f"adapt.ppo.{name} is out of range.", wanted="from 0 to 1", found=str(getattr(self, name))
                )

    def targets(
        self, scores_B: Tensor, log_probs_BT: Tensor, reference_BT: Tensor, values_BT: Tensor, lengths_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(advantages, returns) of a round of answers padded on the right, [B, T]; both 0 at padding."""
        real_BT = torch.arange(values_BT.shape[1], device=values_BT.device) < lengths_B[:, None]
        rewards_BT = kl_penalised_rewards(scores_B, log_probs_BT, reference_BT, lengths_B, self.kl_weight)
        advantages_BT, returns_BT = gae(rewards_BT, torch.where(real_BT, values_BT, 0.0), self.gamma, self.lam)
        return whitened(advantages_BT, real_BT), returns_BT

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch, per answer token."""
        log_probs_N, values_N = log_probabilities_and_values(model, batch)
        columns, count = batch.columns, number(log_probs_N.numel(), log_probs_N)
        ratio_N = (log_probs_N - columns["old_N"]).exp()
        policy_N = clipped_losses(ratio_N, columns["advantage_N"], self.epsilon, self.epsilon)
        value_N = clipped_value_losses(values_N, columns["old_value_N"], columns["return_N"], self.value_clip)
        return Loss({"policy": Term(policy_N.sum(), count), "value": Term(value_N.sum(), count, self.value_weight)})


def log_probabilities_and_values(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """(log p(label), value) at each label's position, in one pass: [N] float32 each."""
    num_labels, padding = batch.labels_N.numel(), -batch.labels_N.numel() % ROUND_LABELS
    logits_NV, values_N = logits_and_values_at(model, model_inputs(batch), F.pad(batch.positions_N, (0, padding)))
    labels_N = F.pad(batch.labels_N, (0, padding), value=IGNORED)
    log_probs_N = -F.cross_entropy(logits_NV.float(), labels_N, reduction="none", ignore_index=IGNORED)
    return log_probs_N[:num_labels], values_N[:num_labels].float()
