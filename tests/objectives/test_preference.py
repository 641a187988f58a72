"""DPO, IPO, KTO, ORPO and the reward model against published values, values worked by hand and a plain forward."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import small
import torch
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.objectives.preference import (
    DPO,
    KTO,
    ORPO,
    Reward,
    ipo_losses,
    kto_losses,
    log1mexp,
    odds_losses,
    reward_losses,
    sigmoid_losses,
)


def pair(prompt: int, chosen: int, rejected: int, seed: int, **columns: Any) -> Any:
    counts = {"pairs": 1.0, "chosen_tokens": float(chosen)}
    return small.answers(prompt, [chosen, rejected], seed, counts, reference_D=[-9.0, -20.0], **columns)


def judged(prompt: int, answer: int, seed: int, desirable: float, reference: float) -> Any:
    counts = {"judged": float(desirable >= 0)}
    return small.answers(prompt, [answer], seed, counts, desirable_D=[desirable], reference_D=[reference])


PAIRS = [pair(5, 3, 4, 1), pair(2, 6, 1, 2), pair(9, 2, 2, 3)]
JUDGED = [judged(5, 3, 1, 1.0, -12.0), judged(4, 2, 2, 0.0, -9.0), judged(3, 5, 3, 1.0, -30.0), judged(6, 3, 4, -1.0, -20.0),
          judged(2, 4, 5, -1.0, -25.0)]  # fmt: skip


def test_dpo_on_torchtunes_example() -> None:
    """tests/torchtune/rlhf/loss/test_dpo_loss.py: margins 0, 10, 20 at beta 0.1 are -log sigmoid(0, 1, 2)."""
    chosen, rejected = torch.tensor([-0.5, -10.0, -1.0]), torch.tensor([-0.1, -30.0, -21.0])
    reference_chosen, reference_rejected = torch.tensor([-0.5, -10.1, -0.1]), torch.tensor([-0.1, -20.1, -0.1])
    losses = sigmoid_losses((chosen - reference_chosen) - (rejected - reference_rejected), 0.1)
    torch.testing.assert_close(losses, torch.tensor([0.6931, 0.3133, 0.1269]), atol=1e-4, rtol=0)


def test_label_smoothing_mixes_the_two_orders() -> None:
    """Margin ln 3 at beta 1: sigmoid is 3/4, so the loss at 0.25 is -(3/4) ln(3/4) - (1/4) ln(1/4)."""
    loss = sigmoid_losses(torch.tensor([math.log(3)]), 1.0, 0.25)
    assert loss.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_ipo_is_zero_at_its_target_margin() -> None:
    """1 / (2 beta) = 5 at beta 0.1; a margin of 2 is 3 off."""
    assert ipo_losses(torch.tensor([5.0, 2.0]), 0.1).tolist() == pytest.approx([0.0, 9.0])


def test_kto_by_hand() -> None:
    """Here z = mean(4, 2) = 3; beta (d - z) = 0.1 (5 - 3), 0.1 (1 - 3): 1 - sigmoid(.2) and 2 (1 - sigmoid(.2)); the others 0."""
    ratio, desirable = torch.tensor([5.0, 1.0, 4.0, 2.0]), torch.tensor([1.0, 0.0, -1.0, -1.0])
    expected = 1 - 1 / (1 + math.exp(-0.2))
    assert kto_losses(ratio, desirable, 0.1, 1.0, 2.0).tolist() == pytest.approx([expected, 2 * expected, 0.0, 0.0])


def test_kto_z_is_never_negative_and_has_no_gradient() -> None:
    ratio = torch.tensor([1.0, 2.0, -4.0], requires_grad=True)
    desirable = torch.tensor([1, 0, -1])
    losses = kto_losses(ratio, desirable, 0.5, 1.0, 1.0)
    assert losses.tolist() == pytest.approx(
        [float(torch.sigmoid(torch.tensor(-0.5))), float(torch.sigmoid(torch.tensor(1.0))), 0.0]
    )
    z_moves = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    kto_losses(z_moves, desirable, 0.5, 1.0, 1.0).sum().backward()
    assert z_moves.grad[2] == 0 and z_moves.grad[0] < 0 < z_moves.grad[1]


def test_kto_without_mismatched_answers_has_z_of_zero() -> None:
    losses = kto_losses(torch.tensor([0.0]), torch.tensor([1]), 0.1, 1.0, 1.0)
    assert losses.item() == pytest.approx(0.5)


@pytest.mark.parametrize("value", [-1e-7, -1e-3, -0.5, -math.log(2), -1.0, -20.0, -200.0])
def test_log1mexp_keeps_its_digits(value: float) -> None:
    exact = math.log1p(-math.exp(value)) if value < -0.7 else math.log(-math.expm1(value))
    assert log1mexp(torch.tensor(value, dtype=torch.float64)).item() == pytest.approx(exact, rel=1e-12)
    if value < -1e-6:
        assert log1mexp(torch.tensor(value)).item() == pytest.approx(exact, rel=1e-5)


def test_odds_stay_finite_where_an_answer_is_certain() -> None:
    for value in (0.0, -1e-12, -1e-7, -1e3, -torch.inf):
        chosen = torch.tensor([value], requires_grad=True)
        loss = odds_losses(chosen, torch.tensor([-1.0]))
        loss.sum().backward()
        assert chosen.grad.isfinite().all() and (loss.isfinite().all() or value == -torch.inf)


def test_odds_by_hand() -> None:
    """Here p = 1/2 against p = 1/4: odds 1 and 1/3, so sigmoid(ln 3) = 3/4."""
    loss = odds_losses(torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)]))
    assert loss.item() == pytest.approx(-math.log(0.75))


def test_reward_loss_depends_on_the_difference_only() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    losses = reward_losses(chosen, rejected)
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(2)])
    torch.testing.assert_close(reward_losses(chosen + 7, rejected + 7), losses)


def test_reward_recovers_planted_scores() -> None:
    """Bradley-Terry: with pairs in the proportions that true scores give, the least loss is at the true scores."""
    true = torch.tensor([0.0, 0.7, -1.1])
    score = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([score], max_iter=100)
    first, second = torch.combinations(torch.arange(3)).T
    share = torch.sigmoid(true[first] - true[second])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        won, lost = reward_losses(score[first], score[second]), reward_losses(score[second], score[first])
        loss = (share * won + (1 - share) * lost).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close((score - score[0]).detach(), true, atol=1e-3, rtol=0)


def log_ratios(ready: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(by[0].sum() + 9.0, by[1].sum() + 20.0) for by in (small.by_hand(ready, item) for item in PAIRS)]


def test_dpo_equals_a_plain_forward_of_each_answer() -> None:
    """The prompt stands once in our row; transformers' own forward reads each prompt and answer alone."""
    ready = small.model()
    expected = sum(-F.logsigmoid(0.2 * (won - lost)) for won, lost in log_ratios(ready)) / 3
    torch.testing.assert_close(
        small.total(DPO(beta=0.2), ready, small.one_batch(PAIRS)), expected, atol=1e-4, rtol=1e-5
    )


def test_ipo_takes_the_ratio_per_token() -> None:
    ready = small.model()
    sizes = [item.document[1:] for item in PAIRS]
    expected = (
        sum((won / one - lost / other - 2.5) ** 2 for (won, lost), (one, other) in zip(log_ratios(ready), sizes)) / 3
    )
    found = small.total(DPO(beta=0.2, loss="ipo"), ready, small.one_batch(PAIRS))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_a_model_that_is_its_own_reference() -> None:
    """DPO is ln 2, KTO 1/2; neither has gradient zero."""
    ready = small.model()
    own = torch.stack([one.sum() for item in PAIRS for one in small.by_hand(ready, item)])
    batch = small.one_batch(PAIRS, reference_D=own)
    assert small.value(DPO(), ready, batch) == pytest.approx(math.log(2), abs=1e-5)
    assert any(gradient.abs().sum() > 0 for gradient in small.gradients(DPO(), ready, [batch]).values())
    own = torch.stack([one.sum() for item in JUDGED for one in small.by_hand(ready, item)])
    assert small.value(KTO(), ready, small.one_batch(JUDGED, reference_D=own)) == pytest.approx(0.5, abs=1e-5)


def test_kto_equals_a_plain_forward_of_each_answer() -> None:
    ready = small.model()
    ratio = [float(small.by_hand(ready, item)[0].sum()) - item.columns["reference_D"][0] for item in JUDGED]
    z = max(0.0, (ratio[3] + ratio[4]) / 2)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))
    good, bad = lambda d: 1 - sigmoid(0.1 * (d - z)), lambda d: 1 - sigmoid(0.1 * (z - d))
    expected = (1.5 * good(ratio[0]) + bad(ratio[1]) + 1.5 * good(ratio[2])) / 3
    found = small.value(KTO(desirable_weight=1.5), ready, small.one_batch(JUDGED))
    assert found == pytest.approx(expected, rel=1e-5)


def test_orpo_equals_a_plain_forward_of_each_answer() -> None:
    ready, nll, tokens, odds = small.model(), 0.0, 0, 0.0
    for item in PAIRS:
        chosen, rejected = small.by_hand(ready, item)
        nll, tokens = nll - float(chosen.sum()), tokens + len(chosen)
        p, q = float(chosen.mean().exp()), float(rejected.mean().exp())
        odds += math.log(1 + (q / (1 - q)) / (p / (1 - p)))
    found = small.value(ORPO(odds_weight=0.3), ready, small.one_batch(PAIRS))
    assert found == pytest.approx(nll / tokens + 0.3 * odds / 3, rel=1e-5)


def test_reward_is_read_at_the_end_of_each_answer() -> None:
    ready, plain = small.model(head="score"), small.model(head="score", attention="eager")
    losses, centres = [], []
    for item in PAIRS:
        prompt, one, _ = item.document
        sides = [item.input_ids[: prompt + one], [*item.input_ids[:prompt], *item.input_ids[prompt + one :]]]
        won, lost = [
            plain(input_ids=torch.tensor([ids]), positions_D=torch.tensor([len(ids) - 1])).squeeze() for ids in sides
        ]
        losses.append(-F.logsigmoid(won - lost))
        centres.append((won + lost) ** 2)
    expected = torch.stack(losses).mean() + 0.1 * torch.stack(centres).mean()
    torch.testing.assert_close(
        small.total(Reward(centering=0.1), ready, small.one_batch(PAIRS)), expected, atol=1e-5, rtol=1e-5
    )


ALL = [
    (DPO(beta=0.3), PAIRS), (DPO(label_smoothing=0.2), PAIRS), (DPO(loss="ipo"), PAIRS), (ORPO(), PAIRS),
    (Reward(centering=0.01), PAIRS), (KTO(undesirable_weight=2.0), JUDGED),
]  # fmt: skip
NAMES = ["dpo", "smoothed", "ipo", "orpo", "reward", "kto"]


@pytest.mark.parametrize(("objective", "items"), ALL, ids=NAMES)
def test_gradient_is_the_finite_difference(objective: Any, items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """KTO's z has no gradient by its definition: here it is held at 0 by references that every mismatched answer misses."""
    small.in_double(monkeypatch)
    batch = small.one_batch(items)
    if isinstance(objective, KTO):
        batch = replace(batch, columns=batch.columns | {"reference_D": torch.tensor([-12.0, -9.0, -15.0, 0.0, 0.0])})
    small.check_gradient(objective, small.model("gpt2", objective.head).double(), batch)


@pytest.mark.parametrize(("objective", "items"), ALL[:-1], ids=NAMES[:-1])
def test_loss_does_not_depend_on_how_a_step_is_cut(objective: Any, items: Any) -> None:
    small.check_cut(objective, small.model(head=objective.head), items)


def test_kto_couples_rows_and_says_so() -> None:
    assert KTO.couples_rows
    ready, whole = small.model(), small.one_batch(JUDGED)
    halves = [replace(small.one_batch(part), counts=whole.counts) for part in (JUDGED[:4], JUDGED[4:])]
    assert sum(small.value(KTO(), ready, half) for half in halves) != pytest.approx(
        small.value(KTO(), ready, whole), rel=1e-4
    )


@pytest.mark.parametrize(("objective", "items"), ALL, ids=NAMES)
def test_it_runs_on_fake_tensors(objective: Any, items: Any) -> None:
    small.check_fake(objective, items)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DPO(beta=0.0), r"dpo\.beta is out of range"),
        (lambda: DPO(loss="hinge"), r'wanted: "sigmoid" or "ipo"\n  found:  "hinge"'),
        (lambda: DPO(label_smoothing=0.5), r"dpo\.label_smoothing is out of range"),
        (lambda: DPO(loss="ipo", label_smoothing=0.1), r"no effect on IPO"),
        (lambda: KTO(desirable_weight=-1.0), r"kto\.desirable_weight is out of range"),
        (lambda: ORPO(odds_weight=float("nan")), r"orpo\.odds_weight is out of range"),
        (lambda: Reward(centering=-0.1), r"reward\.centering is out of range"),
    ],
)  # fmt: skip
def test_a_constant_out_of_range_is_refused(make: Any, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        make()


def test_a_branching_pair_is_two_plain_rows_in_loss_and_gradient() -> None:
    """The prompt once, or once an answer with attention that knows no branches: DPO's loss and every gradient are the same."""
    ready = small.model()
    branching = small.one_batch(PAIRS)
    loss, found = small.value(DPO(beta=0.3), ready, branching), small.gradients(DPO(beta=0.3), ready, [branching])
    plain = small.model(attention="eager")
    plain.load_state_dict(ready.state_dict())
    margins = []
    for one in PAIRS:
        prompt, chosen, rejected = one.document
        rows = [
            torch.tensor([[*one.input_ids[:prompt], *one.input_ids[start : start + length]]])
            for start, length in ((prompt, chosen), (prompt + chosen, rejected))
        ]
        said = [
            plain(input_ids=row).logits[0].log_softmax(-1)[prompt - 1 : -1].gather(1, row[0, prompt:, None]).sum()
            for row in rows
        ]
        margins.append((said[0] - -9.0) - (said[1] - -20.0))
    by_hand = -F.logsigmoid(0.3 * torch.stack(margins)).mean()
    by_hand.backward()
    assert loss == pytest.approx(by_hand.item(), rel=1e-5)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=2e-5, rtol=1e-4)
