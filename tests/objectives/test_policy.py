"""GRPO's variants and PPO against values worked by hand, the formulas of verl as published, and a bandit that must learn."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import small
import torch

from genwright.base.errors import RecipeError
from genwright.objectives.language import label_log_probabilities
from genwright.objectives.policy import (
    GRPO,
    PPO,
    cispo_losses,
    clipped_losses,
    clipped_value_losses,
    gae,
    group_advantages,
    k3,
    kl_penalised_rewards,
    log_probabilities_and_values,
    whitened,
)

READY = small.model()


def group(prompt: int, lengths: list[int], seed: int) -> Any:
    """A prompt and its answers; what the rollout and the reference said is near what the model says, but not the same."""
    plain = small.answers(prompt, lengths, seed)
    log_probs = torch.cat(small.by_hand(READY, plain))
    torch.manual_seed(seed)
    near = lambda: (log_probs + 0.3 * torch.randn(log_probs.shape)).tolist()
    columns = {"old_N": near(), "reference_N": near(), "advantage_N": torch.randn(log_probs.shape).tolist(),
               "return_N": torch.randn(log_probs.shape).tolist(), "old_value_N": torch.randn(log_probs.shape).tolist(),
               "advantage_D": torch.randn(len(lengths)).tolist()}  # fmt: skip
    return replace(plain, columns=columns)


GROUPS = [group(5, [3, 4, 1], 1), group(2, [6, 1, 5], 2)]
NUM_ANSWERS, NUM_TOKENS = 6, 20


def test_advantages_by_hand() -> None:
    """[1, 0, 0, 0]: mean 1/4, unbiased std 1/2: 0.75 / 0.5001 and -0.25 / 0.5001, TRL's values."""
    found = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))[0].tolist()
    assert found == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], rel=1e-6)
    assert found == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=1e-4)


@pytest.mark.parametrize("reward", [0.1, -3.3, 1e6, 1 / 3])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_equal_rewards_are_exactly_no_advantage(reward: float, size: int, scale: str) -> None:
    """0.1 * 3 / 3 is not 0.1 in floats; divided by 1e-4 the rounding would be felt."""
    assert (group_advantages(torch.full((2, size), reward), scale) == 0).all()


@pytest.mark.parametrize(("reward", "size"), [(0.9, 3), (0.3, 6), (0.1, 7)])
def test_equal_rewards_beside_a_nan_are_exactly_no_advantage(reward: float, size: int) -> None:
    """Measured from the least of those that are known: from the 0 of a NaN, their mean would round."""
    assert (group_advantages(torch.tensor([[reward] * size + [math.nan]])) == 0).all()


def test_a_nan_reward_stays_in_its_group_and_counts_for_nothing() -> None:
    rewards = torch.tensor([[1.0, math.nan, 3.0], [1.0, 2.0, 4.0], [math.nan] * 3])
    found = group_advantages(rewards)
    torch.testing.assert_close(found[0, [0, 2]], group_advantages(torch.tensor([[1.0, 3.0]]))[0])
    assert found[0, 1] == 0 and (found[2] == 0).all()
    torch.testing.assert_close(found[1], group_advantages(rewards[1:2])[0], atol=0, rtol=0)


def test_advantages_without_scale_are_differences_from_the_mean() -> None:
    assert group_advantages(torch.tensor([[1.0, 2.0, 6.0]]), "none")[0].tolist() == pytest.approx([-2.0, -1.0, 3.0])


def test_k3_by_hand_and_unbiased() -> None:
    """Here d = ln 2 gives 2 - ln 2 - 1. Its mean over p = (1/4, 3/4) is KL(p || (1/2, 1/2))."""
    assert k3(torch.tensor([0.0]), torch.tensor([math.log(2)])).item() == pytest.approx(1 - math.log(2))
    p, q = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-6)


def test_k3_of_equals_is_exactly_zero_with_zero_gradient() -> None:
    log_probs = torch.randn(50, requires_grad=True)
    k3(log_probs, log_probs.detach()).sum().backward()
    assert (k3(log_probs, log_probs.detach()) == 0).all() and (log_probs.grad == 0).all()


def test_clipping_by_hand() -> None:
    """A good action counts up to 1.2, a bad one from 0.8 on; on the other side nothing is clipped."""
    ratio, good, bad = torch.tensor([0.5, 1.0, 1.5]), torch.ones(3), -torch.ones(3)
    assert clipped_losses(ratio, good, 0.2, 0.2).tolist() == pytest.approx([-0.5, -1.0, -1.2])
    assert clipped_losses(ratio, bad, 0.2, 0.2).tolist() == pytest.approx([0.8, 1.0, 1.5])
    assert clipped_losses(ratio, good, 0.2, 0.28).tolist() == pytest.approx([-0.5, -1.0, -1.28])


def test_cispo_keeps_every_gradient_and_bounds_its_weight() -> None:
    """The gradient in lp is -min(ratio, 1.2) A: at a ratio of 2 it is -1.2 A, where PPO's would be 0."""
    log_probs = torch.tensor([math.log(2), math.log(0.5)], requires_grad=True)
    cispo_losses(log_probs, torch.zeros(2), torch.tensor([3.0, 3.0]), 0.2).sum().backward()
    assert log_probs.grad.tolist() == pytest.approx([-3.6, -1.5])


def test_value_loss_by_hand() -> None:
    """A value of 2 that was 0, return 3: clipped to 0.2 it misses by 2.8, and the worse of both counts."""
    found = clipped_value_losses(torch.tensor([2.0, 0.1]), torch.zeros(2), torch.tensor([3.0, 1.0]), 0.2)
    assert found.tolist() == pytest.approx([0.5 * 2.8**2, 0.5 * 0.9**2])


def test_gae_by_hand() -> None:
    """Gamma 1/2, lambda 1/2, rewards (0, 1), values (1, 2): deltas 0, -1; A = (0 + 1/4 * -1, -1); R = A + v."""
    advantages, returns = gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0]]), 0.5, 0.5)
    assert advantages[0].tolist() == pytest.approx([-0.25, -1.0])
    assert returns[0].tolist() == pytest.approx([0.75, 1.0])


def test_gae_between_its_two_ends() -> None:
    """Lambda 1 is the sum of rewards to come minus the value; lambda 0 is one step of difference."""
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 6), torch.randn(3, 6)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(rewards, values, 1.0, 1.0)[0], to_come - values)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1)], dim=1)
    torch.testing.assert_close(gae(rewards, values, 0.9, 0.0)[0], rewards + 0.9 * following - values)


def test_gae_is_verls() -> None:
    """Verl core_algos.compute_gae_advantage_return, written out as published (its mask path), without whitening."""
    torch.manual_seed(1)
    rewards, values = torch.randn(2, 5), torch.randn(2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    nextvalues, lastgaelam, reversed_advantages = torch.zeros(2), torch.zeros(2), []
    for t in reversed(range(5)):
        delta = rewards[:, t] + 0.97 * nextvalues - values[:, t]
        lastgaelam_ = delta + 0.97 * 0.9 * lastgaelam
        nextvalues = values[:, t] * mask[:, t] + (1 - mask[:, t]) * nextvalues
        lastgaelam = lastgaelam_ * mask[:, t] + (1 - mask[:, t]) * lastgaelam
        reversed_advantages.append(lastgaelam)
    expected = torch.stack(reversed_advantages[::-1], dim=1)
    found, returns = gae(rewards * mask, values * mask, 0.97, 0.9)
    torch.testing.assert_close(found * mask, expected * mask)
    torch.testing.assert_close(returns * mask, (expected + values) * mask)


def test_whitened_has_mean_zero_and_variance_one_over_real_tokens() -> None:
    torch.manual_seed(2)
    values, real = torch.randn(3, 5) * 4 + 7, torch.tensor([[1, 1, 0, 0, 0], [1] * 5, [1, 1, 1, 0, 0]]).bool()
    found = whitened(values, real)
    assert found[real].mean().abs() < 1e-6 and found[real].var().item() == pytest.approx(1.0, rel=1e-5)
    assert (found[~real] == 0).all()
    torch.testing.assert_close(found, whitened(values.masked_fill(~real, math.nan), real))


def test_rewards_are_a_score_at_the_end_and_a_price_for_departing() -> None:
    """With lp - ref = 1 at each token, price 0.1; scores 5 and 7; answers of 2 and 3 tokens. What padding holds is not read."""
    log_probs, reference = (
        torch.tensor([[-1.0, -2.0, math.nan], [-1.0, -1.0, -1.0]]),
        torch.tensor([[-2.0, -3.0, 0.0], [-2.0] * 3]),
    )
    found = kl_penalised_rewards(torch.tensor([5.0, 7.0]), log_probs, reference, torch.tensor([2, 3]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[-0.1, 4.9, 0.0], [-0.1, -0.1, 6.9]]))


def test_ppo_targets_put_the_parts_together() -> None:
    torch.manual_seed(3)
    log_probs, reference, values = torch.randn(3, 2, 4)
    lengths, objective = torch.tensor([2, 4]), PPO(kl_weight=0.2, gamma=0.9, lam=0.8)
    advantages, returns = objective.targets(torch.tensor([1.0, 2.0]), log_probs, reference, values, lengths)
    for row, length in enumerate((2, 4)):
        rewards = -0.2 * (log_probs - reference)[row, :length]
        rewards[-1] += row + 1.0
        alone, alone_returns = gae(rewards[None], values[row : row + 1, :length], 0.9, 0.8)
        torch.testing.assert_close(returns[row, :length], alone_returns[0])
        # Whitening is one line for all answers: differences within an answer keep their proportions.
        spread = advantages[row, :length] - advantages[row, 0]
        torch.testing.assert_close(
            spread * float((alone[0, 1] - alone[0, 0]) / spread[1]), alone[0] - alone[0, 0], atol=1e-5, rtol=1e-4
        )
    assert (advantages[0, 2:] == 0).all() and (returns[0, 2:] == 0).all()


def per_answer(item: Any) -> list[tuple[torch.Tensor, ...]]:
    """(lp now, old, reference, advantage) of each answer, from a plain forward."""
    sizes = item.document[1:]
    split = lambda name: torch.tensor(item.columns[name]).split(list(sizes))
    return list(
        zip(small.by_hand(READY, item), split("old_N"), split("reference_N"), torch.tensor(item.columns["advantage_D"]))
    )


ANSWERS = [answer for item in GROUPS for answer in per_answer(item)]


def clip_by_hand(ratio: torch.Tensor, advantage: torch.Tensor, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    bound = 1 + high if advantage > 0 else 1 - low
    worse = ratio > bound if advantage > 0 else ratio < bound
    return -advantage * torch.where(worse, torch.full_like(ratio, bound), ratio)


def expected_loss(name: str) -> float:
    tokens = [clip_by_hand((now - old).exp(), a) for now, old, _, a in ANSWERS]
    if name == "grpo":
        return float(sum(one.mean() for one in tokens)) / NUM_ANSWERS
    if name == "dapo":
        return float(torch.cat(tokens).mean())
    if name == "dr_grpo":
        return float(torch.cat(tokens).sum()) / (NUM_ANSWERS * 10)
    if name == "gspo":
        return float(sum(clip_by_hand((now - old).mean().exp(), a) for now, old, _, a in ANSWERS)) / NUM_ANSWERS
    return float(sum((-(now - old).exp().clamp(max=1.2) * a * now).sum() for now, old, _, a in ANSWERS)) / NUM_TOKENS


def variant(name: str, **constants: Any) -> GRPO:
    return GRPO(loss=name, answer_tokens=10 if name == "dr_grpo" else 0, **constants)


VARIANTS = ["grpo", "dapo", "dr_grpo", "gspo", "cispo"]


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_by_a_plain_forward_of_each_answer(name: str) -> None:
    assert small.value(variant(name), READY, small.one_batch(GROUPS)) == pytest.approx(expected_loss(name), rel=1e-4)


def test_no_two_variants_are_the_same() -> None:
    values = [expected_loss(name) for name in VARIANTS]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-3


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_kl_is_divided_as_the_variant_divides(name: str, corrected: bool) -> None:
    k3s = [((ref - now).exp() - (ref - now) - 1) for now, _, ref, _ in ANSWERS]
    kl = [one * (now - old).exp() for one, (now, old, _, _) in zip(k3s, ANSWERS)] if corrected else k3s
    by_answer = float(sum(one.mean() for one in kl)) / NUM_ANSWERS
    by_token = float(torch.cat(kl).mean())
    expected = {
        "grpo": by_answer,
        "gspo": by_answer,
        "dapo": by_token,
        "cispo": by_token,
        "dr_grpo": by_token * NUM_TOKENS / 60,
    }
    found = small.value(variant(name, beta=0.5, corrected_kl=corrected), READY, small.one_batch(GROUPS)) - small.value(
        variant(name), READY, small.one_batch(GROUPS)
    )
    assert found == pytest.approx(0.5 * expected[name], rel=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_first_step_after_sampling(name: str) -> None:
    """Ratio exactly 1, KL exactly 0; the loss is -A however it is divided, its gradient that of -A lp, and not zero."""
    batch = small.one_batch(GROUPS)
    with torch.no_grad():
        now = label_log_probabilities(READY, batch)
    batch = replace(batch, columns=batch.columns | {"old_N": now, "reference_N": now})
    objective = variant(name, beta=0.3)
    terms = objective(READY, batch).terms
    assert terms["kl"].total == 0
    advantage = batch.columns["advantage_D"][batch.document_N]
    losses = objective.token_losses(now, batch)
    assert torch.equal(losses, -advantage * now) if name == "cispo" else torch.equal(losses, -advantage)

    def surrogate(ready: Any, same: Any) -> Any:
        return SimpleNamespace(
            terms={"policy": objective._term(-advantage * label_log_probabilities(ready, same), same)}
        )

    expected = small.gradients(surrogate, READY, [batch])
    found = small.gradients(objective, READY, [batch])
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 1e-3
    if name != "gspo":  # its ratio is the answer's: the same gradient but for rounding in the mean
        for key, gradient in found.items():
            torch.testing.assert_close(gradient, expected[key], atol=1e-6, rtol=1e-5)


def test_second_step_on_the_same_rollouts_has_another_ratio() -> None:
    ready, batch = small.model(), small.one_batch(GROUPS)
    with torch.no_grad():
        batch = replace(batch, columns=batch.columns | {"old_N": label_log_probabilities(ready, batch)})
    first = small.value(GRPO(), ready, batch)
    found = small.gradients(GRPO(), ready, [batch])
    with torch.no_grad():
        for name, gradient in found.items():
            ready.get_parameter(name).sub_(1e-3 * gradient)
        assert small.value(GRPO(), ready, batch) < first
        assert (label_log_probabilities(ready, batch) - batch.columns["old_N"]).abs().max() > 1e-4


def test_ppo_by_a_plain_forward_of_each_answer() -> None:
    """Policy and value read the same pass; the value is the value head over the last hidden state."""
    ready = small.model(head="value")
    batch = small.one_batch(GROUPS)
    log_probs, values = log_probabilities_and_values(ready, batch)
    torch.testing.assert_close(
        log_probs, torch.cat([one for item in GROUPS for one in small.by_hand(ready, item)]), atol=1e-5, rtol=1e-5
    )
    plain = small.model(attention="eager")
    plain.load_state_dict({name: value for name, value in ready.state_dict().items() if "value_head" not in name})
    found, start = [], 0
    for item in GROUPS:
        prompt, *lengths = item.document
        start = prompt
        for length in lengths:
            ids = torch.tensor([[*item.input_ids[:prompt], *item.input_ids[start : start + length]]])
            hidden = plain.model(input_ids=ids).last_hidden_state[0, prompt - 1 : -1]
            found.append(hidden @ ready.value_head.weight[0] + ready.value_head.bias)
            start += length
    torch.testing.assert_close(values, torch.cat(found), atol=1e-4, rtol=1e-4)
    columns = batch.columns
    ratio = (log_probs - columns["old_N"]).exp()
    policy = torch.stack([clip_by_hand(one, a) for one, a in zip(ratio, columns["advantage_N"])]).mean()
    clipped = columns["old_value_N"] + (values - columns["old_value_N"]).clamp(-0.2, 0.2)
    worse = torch.maximum((values - columns["return_N"]).abs(), (clipped - columns["return_N"]).abs())
    torch.testing.assert_close(
        small.total(PPO(value_weight=0.3), ready, batch), policy + 0.15 * (worse**2).mean(), atol=1e-5, rtol=1e-4
    )


ALL = [GRPO(loss="grpo", beta=0.1, corrected_kl=False), GRPO(), variant("dr_grpo"), variant("gspo", beta=0.1), PPO()]
NAMES = ["grpo", "dapo", "dr_grpo", "gspo", "ppo"]


@pytest.mark.parametrize("objective", ALL, ids=NAMES)
def test_gradient_is_the_finite_difference(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but cispo's, whose weight has no gradient by definition. Old log-probabilities are near this model's own."""
    small.in_double(monkeypatch)
    ready = small.model("gpt2", objective.head).double()
    batch = small.one_batch(GROUPS)
    with torch.no_grad():
        now = label_log_probabilities(ready, batch)
    torch.manual_seed(7)
    shifted = now + 0.15 * torch.randn(now.shape)
    small.check_gradient(
        objective, ready, replace(batch, columns=batch.columns | {"old_N": shifted, "reference_N": shifted - 0.1})
    )


@pytest.mark.parametrize("objective", [*ALL, variant("cispo")], ids=[*NAMES, "cispo"])
def test_loss_does_not_depend_on_how_a_step_is_cut(objective: Any) -> None:
    small.check_cut(objective, small.model(head=objective.head), GROUPS)


@pytest.mark.parametrize("objective", [*ALL, variant("cispo")], ids=[*NAMES, "cispo"])
def test_it_runs_on_fake_tensors(objective: Any) -> None:
    small.check_fake(objective, GROUPS)


def learn(objective: GRPO, scale: str = "group", steps: int = 40, rate: float = 2.0) -> list[float]:
    """A bandit of 5 tokens and answers of 4; the reward is how often token 2 stands in an answer. Its chance, step by step."""
    logits = torch.zeros(5, requires_grad=True)
    chance, shares = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        log_probs = logits.log_softmax(0)
        tokens = torch.multinomial(log_probs.detach().exp(), 4 * 64, replacement=True, generator=chance)
        rewards = (tokens.view(8, 8, 4) == 2).float().sum(-1)
        batch = SimpleNamespace(
            document_N=torch.arange(64).repeat_interleave(4), num_documents=64,
            columns={"advantage_D": group_advantages(rewards, scale).flatten(), "old_N": log_probs.detach()[tokens],
                     "reference_N": torch.full((256,), -math.log(5))},
        )  # fmt: skip
        loss = objective.token_losses(log_probs[tokens], batch).mean()
        if objective.beta:
            loss = loss + objective.beta * objective.token_kl(log_probs[tokens], batch).mean()
        (gradient,) = torch.autograd.grad(loss, [logits])
        logits.data -= rate * gradient
        shares.append(float(logits.detach().softmax(0)[2]))
    return shares


@pytest.mark.parametrize("name", VARIANTS)
def test_the_rewarded_token_becomes_likely(name: str) -> None:
    assert learn(variant(name))[-1] > 0.8


@pytest.mark.parametrize("beta", [0.3, 0.5, 2.0])
def test_the_kl_holds_the_policy_where_it_should(beta: float) -> None:
    """The best policy is reference * exp(reward / beta); 7/8 of the reward counts, for a group's mean has the answer in it.

    So logit(p) = logit(1/5) + 7 / (8 beta).
    """
    p = 1 / (1 + math.exp(-(math.log(0.2 / 0.8) + 7 / 8 / beta)))
    shares = learn(GRPO(beta=beta), scale="none", steps=300, rate=0.3)
    assert sum(shares[-150:]) / 150 == pytest.approx(p, abs=0.02)


@pytest.mark.parametrize("beta", [0.3, 0.5, 2.0])
def test_k3_alone_has_the_slope_of_the_other_kl(beta: float) -> None:
    """Reward pulls token 2's logit by 7/8 p (1 - p), KL(reference || policy) by -beta (p - 1/5)."""
    p = (7 / 8 - beta + math.sqrt((7 / 8 - beta) ** 2 + 4 * 7 / 8 * beta / 5)) / (2 * 7 / 8)
    shares = learn(GRPO(beta=beta, corrected_kl=False), scale="none", steps=300, rate=0.3)
    assert sum(shares[-150:]) / 150 == pytest.approx(p, abs=0.02)


def test_only_a_kl_asks_for_a_reference() -> None:
    assert GRPO().columns == () and GRPO(beta=0.1).columns == ("reference_N",)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GRPO(loss="bnpo"), r'write loss = "dapo"'),
        (lambda: GRPO(loss="ppo"), r"grpo\.loss names no loss"),
        (lambda: GRPO(loss="dr_grpo"), r'found:  0 with loss "dr_grpo"'),
        (lambda: GRPO(answer_tokens=5), r"answer_tokens is the constant of dr_grpo"),
        (lambda: GRPO(epsilon_high=0.0), r"epsilon_high is out of range"),
        (lambda: GRPO(loss="cispo", epsilon_low=0.1), r"no effect on cispo"),
        (lambda: GRPO(beta=-0.1), r"grpo\.beta is out of range"),
        (lambda: GRPO(corrected_kl=False), r"no effect without a KL"),
        (lambda: PPO(epsilon=0.0), r"ppo\.epsilon is out of range"),
        (lambda: PPO(kl_weight=-1.0), r"ppo\.kl_weight is out of range"),
        (lambda: PPO(lam=1.5), r"ppo\.lam is out of range"),
        (lambda: group_advantages(torch.zeros(1, 2), "batch"), r"scale names no way"),
    ],
)  # fmt: skip
def test_a_constant_out_of_range_is_refused(make: Any, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        make()
