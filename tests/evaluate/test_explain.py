"""Explanations against closed forms: completeness, a linear model, the model's own logits, log2 V, a planted row."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.e2e.tiny import model, tokenizer
from torch import Tensor, nn

from genwright.base.errors import BadRequest
from genwright.evaluate.explain import (
    Case,
    ablation,
    entropy_bits,
    explain,
    faithfulness,
    integrated_gradients,
    lens_logits,
    logit_lens,
    shapley,
    tokens_of,
)
from genwright.evaluate.explain_rows import Lesson, nearest_rows, rows_faithfulness, taught
from genwright.models.surgery import layers_of


@pytest.fixture(scope="module")
def case() -> Case:
    words = tokenizer("decoder")
    ids = lambda text: words(text, add_special_tokens=False)["input_ids"]
    return Case(model("decoder").eval(), words, ids("the red house number 3 stands"), ids(" near the river"))


class Linear(nn.Module):
    """Embeddings and one weight vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.weight = nn.Embedding(20, 4), nn.Parameter(torch.randn(4))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words


class LinearCase(Case):
    """f(x) = sum_t w . x_t: the part of a token is w . (x_t - baseline), by any method."""

    def score(self, prompt_BTH: Tensor) -> Tensor:
        return (prompt_BTH @ self.model.weight).sum(1)


def linear() -> LinearCase:
    return LinearCase(
        Linear(), SimpleNamespace(pad_token_id=1, eos_token_id=0), [3, 4, 5, 6, 7], [9], fixed=(True,) + (False,) * 4
    )


def test_a_linear_models_parts_are_known() -> None:
    case = linear()
    values = case.model.words.weight @ case.model.weight
    expected = [0.0, *((values[token] - values[0]).item() for token in case.prompt[1:])]
    parts, gap = integrated_gradients(case)
    assert parts == pytest.approx(expected, abs=1e-5) and gap < 1e-5
    assert ablation(case) == pytest.approx(expected, abs=1e-5)


def test_faithfulness_of_the_best_order_and_of_its_reverse() -> None:
    """Of a linear model the parts are the best order there is: no other order falls sooner; the reverse is worse than chance."""
    case = linear()
    parts = ablation(case)
    whole = sum(parts)
    found = faithfulness(case, parts, points=5)
    order = sorted(parts[1:], reverse=True)
    left = [whole - sum(order[:taken]) for taken in range(5)]
    assert found["curves"]["deletion"] == pytest.approx([value / whole for value in left], abs=1e-5)
    reverse = faithfulness(case, [-part for part in parts], points=5)
    sign = math.copysign(1, whole)
    for name in ("deletion", "insertion"):
        assert sign * found["gain"][name] > 0 > sign * reverse["gain"][name]


def test_integrated_gradients_are_complete(case: Case) -> None:
    parts, gap = integrated_gradients(case, steps=64)
    full, empty = case.scores([case.prompt, [case.baseline_id] * len(case.prompt)])
    assert sum(parts) == pytest.approx(full - empty, rel=1e-2) and gap < 1e-2


def test_ablation_by_hand(case: Case) -> None:
    without = [case.baseline_id, *case.prompt[1:]]
    full, less = case.scores([case.prompt, without])
    assert ablation(case)[0] == pytest.approx(full - less, abs=1e-4)


def test_shapley_values_add_up_and_share_what_two_tokens_do_together(case: Case) -> None:
    parts = shapley(case, orders=3)
    full, empty = case.scores([case.prompt, [case.baseline_id] * len(case.prompt)])
    assert sum(parts) == pytest.approx(full - empty, abs=1e-4) and parts == shapley(case, orders=3)
    assert parts != pytest.approx(shapley(case, orders=3, seed=1), abs=1e-6)
    one = linear()
    with torch.no_grad():
        base = one.embedded(torch.tensor([one.baseline_id]))
        wanted = [float((one.embedded(torch.tensor([token])) - base)[0] @ one.model.weight) for token in one.prompt]
    assert shapley(one) == pytest.approx([0.0, *wanted[1:]], abs=1e-5)


def test_the_score_is_the_models_loss(case: Case) -> None:
    ids = torch.tensor([[*case.prompt, *case.answer]])
    labels = torch.tensor([[-100] * len(case.prompt) + case.answer])
    with torch.no_grad():
        loss = case.model(input_ids=ids, labels=labels).loss
    assert case.scores([case.prompt])[0] == pytest.approx(-float(loss) * len(case.answer), abs=1e-4)
    likely = [one["probability"] for one in tokens_of(case)]
    assert math.log(math.prod(likely)) == pytest.approx(case.scores([case.prompt])[0], abs=1e-3)


def test_entropy_of_equal_chances_and_of_certainty() -> None:
    log_p = torch.stack([torch.full((8,), -math.log(8)), torch.tensor([0.0] + [-math.inf] * 7)])
    assert entropy_bits(log_p).tolist() == pytest.approx([3, 0])


def test_the_last_layer_says_what_the_model_says(case: Case) -> None:
    blocks, norm = layers_of(case.model)
    layers = lens_logits(case, blocks, norm, case.model.get_output_embeddings())
    with torch.no_grad():
        own = case.model(input_ids=torch.tensor([[*case.prompt, *case.answer]])).logits[0, len(case.prompt) - 1 : -1]
    assert (
        len(layers) == 4
        and torch.allclose(layers[-1], own, atol=1e-5)
        and not torch.allclose(layers[0], own, atol=1e-2)
    )
    told = logit_lens(case)[-1]
    assert told["probability"] == pytest.approx([one["probability"] for one in tokens_of(case)], abs=1e-5)


def test_a_planted_row_comes_first(case: Case) -> None:
    ids = lambda text: case.tokenizer(text, add_special_tokens=False)["input_ids"]
    asked = Lesson("asked", "", case.prompt, case.answer)
    rows = [
        Lesson(f"r{n}", "", ids(f"the blue house number {n}"), ids(" is far from the green house")) for n in range(6)
    ]
    rows.insert(3, Lesson("planted", "", ids("the red house number 4 stands"), case.answer))
    before = [parameter.requires_grad for parameter in case.model.parameters()]
    found = nearest_rows(case, asked, rows, most=3)
    assert found[0]["place"] == "planted" and found[0]["gradient_cosine"] > found[1]["gradient_cosine"]
    itself = nearest_rows(case, asked, [asked])[0]
    assert itself["gradient_cosine"] == pytest.approx(1, abs=1e-4) and itself["embedding_cosine"] == pytest.approx(
        1, abs=1e-4
    )
    assert [parameter.requires_grad for parameter in case.model.parameters()] == before


def test_a_step_along_a_row_lowers_the_loss_by_the_dot_product(case: Case) -> None:
    """TracIn's promise, to first order: change = -rate * dot."""
    from genwright.evaluate.explain_rows import gradient_of, loss_of, weights_of

    asked, row = Lesson("a", "", case.prompt, case.answer), Lesson("b", "", case.answer, case.prompt)
    weights: list[Any] = weights_of(case.model)
    one, other = (gradient_of(case.model, lesson, case, weights) for lesson in (asked, row))
    kept, rate, at = [weight.detach().clone() for weight in weights], 1e-3, 0
    with torch.no_grad():
        before = float(loss_of(case.model, asked, case))
        for weight in weights:
            weight -= rate * other[at : at + weight.numel()].view_as(weight)
            at += weight.numel()
        after = float(loss_of(case.model, asked, case))
        for weight, old in zip(weights, kept):
            weight.copy_(old)
    assert after - before == pytest.approx(-rate * float(one @ other), rel=0.1, abs=2e-6)


def test_nothing_to_explain(case: Case) -> None:
    with pytest.raises(BadRequest, match="nothing to explain"):
        explain(Case(case.model, case.tokenizer, case.prompt, []))


def test_near_rows_teach_more_than_others_and_the_weights_are_put_back(case: Case) -> None:
    ids = lambda text: case.tokenizer(text, add_special_tokens=False)["input_ids"]
    asked = Lesson("asked", "", case.prompt, case.answer)
    rows = [asked, *(Lesson(str(n), "", ids(f"a white owl {n}"), ids(" never sang")) for n in range(6))]
    before = [weight.detach().clone() for weight in case.model.parameters()]
    near = nearest_rows(case, asked, rows, most=2)
    found = rows_faithfulness(case, near, rows)
    assert all(torch.equal(a, b) for a, b in zip(before, case.model.parameters()))
    assert taught(case, asked) > max(taught(case, row) for row in rows[1:])
    assert taught(case, asked) > 0 and set(found["gain"]) == {"gradient_cosine", "embedding_cosine"}
    assert found["gain"]["gradient_cosine"] == pytest.approx(found["nearest"]["gradient_cosine"] - found["chance"])
