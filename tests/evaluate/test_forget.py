"""Measures of forgetting, against values by hand, scipy, rouge-score and torch."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from tests.e2e.tiny import model, tokenizer

from genwright.base.errors import DataError
from genwright.data.formats import Row
from genwright.evaluate.forget import (
    Fact,
    Witness,
    common_start,
    facts_of,
    harmonic_mean,
    ks_test,
    rouge_recall,
    steps_to_come_back,
    truth_ratio,
    utility,
)


def fact(question: str, answer: str, **more: Any) -> Fact:
    return Fact("x:1", ({"role": "user", "content": question},), answer, more.pop("paraphrase", answer), **more)


def test_truth_ratio_by_hand() -> None:
    assert truth_ratio(math.log(0.5), [math.log(0.2), math.log(0.3)]) == pytest.approx(0.5)  # (0.2 + 0.3) / 2 / 0.5


def test_harmonic_mean_by_hand() -> None:
    assert harmonic_mean([1, 0.5, 0.25]) == pytest.approx(3 / 7) and harmonic_mean([1, 0]) == 0
    one = {"probability": 1.0, "rouge_l": 0.5, "truth_ratio": 0.75}
    assert utility({"a": one}) == pytest.approx(3 / 7) and utility({"a": one | {"truth_ratio": 1.2}}) == 0


@pytest.mark.parametrize(("n", "m", "shift"), [(6, 6, 0.8), (20, 35, 0.3), (40, 40, 0.0), (7, 3, 5.0), (1, 1, 1.0)])
def test_ks_is_scipys_exact(n: int, m: int, shift: float) -> None:
    draw = random.Random(n * m)
    one, other = [draw.gauss(0, 1) for _ in range(n)], [draw.gauss(shift, 1) for _ in range(m)]
    expected = ks_2samp(one, other, method="exact")
    assert ks_test(one, other) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)


def test_ks_of_equal_samples_and_of_none() -> None:
    assert ks_test([1, 2], [1, 2]) == (0, 1)
    with pytest.raises(DataError, match="A sample is empty"):
        ks_test([], [1])


def test_rouge_is_a_recall() -> None:
    assert rouge_recall("she was born in Carrow long ago", "born in Carrow") == 1
    assert rouge_recall("Carrow", "born in Carrow") == pytest.approx(1 / 3)


def test_coming_back() -> None:
    assert steps_to_come_back([0.1, 0.3, 0.6], before=1.0) == 2 and steps_to_come_back([0.1], before=1.0) is None
    assert common_start([1, 2, 3], [1, 2, 4]) == 2 and common_start([1], [1]) == 1


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(model("decoder").eval(), tokenizer("decoder"), max_tokens=8)


def test_probability_a_token_is_the_models(witness: Witness) -> None:
    """By one plain forward pass of transformers over the rendered conversation."""
    one = fact("what colour is the house", "red")
    text = "### user\nwhat colour is the house\n\n### assistant\n"
    prompt, answer = (witness.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, "red[END]"))
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        log_p = witness.model(input_ids=ids).logits[0].log_softmax(-1)
    by_hand = sum(log_p[len(prompt) + step - 1, token] for step, token in enumerate(answer)) / len(answer)
    assert witness.per_token([one], ["red"]) == pytest.approx([float(by_hand)], abs=1e-5)


def test_what_is_known_and_extracted(witness: Witness) -> None:
    facts = [fact("what colour", "red", wrong=("blue", "green")), fact("which river", "white", wrong=("red",))]
    found = witness.knows(facts)
    likely = [math.exp(value) for value in witness.per_token(facts, ["red", "white"])]
    assert found["probability"] == pytest.approx(sum(likely) / 2) and len(found["answers"]) == 2
    ratio = sum(map(math.exp, witness.per_token(facts[:1] * 2, ["blue", "green"]))) / 2 / likely[0]
    assert found["rows"]["truth_ratio"][0] == pytest.approx(ratio, rel=1e-4)
    own = witness.answers([facts[0].messages])[0]
    assert (
        witness.paraphrased([fact("what colour", own)])["rows"] == 1
    )  # it says what it says, however it is asked first
    assert 0 <= witness.extracted(facts)["tokens"] <= 1
    with pytest.raises(DataError, match="no wrong answer"):
        witness.truth_ratios([fact("q", "a")])


def test_bits_of_a_text(witness: Witness) -> None:
    ids = witness.tokenizer("the red house[END]", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = witness.model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert witness.bits(["the red house"]) == pytest.approx(float(loss) / math.log(2), abs=1e-4)


def test_wrong_answers_come_from_other_rows() -> None:
    told = lambda q, a: Row("chat", ({"role": "user", "content": q}, {"role": "assistant", "content": a}), place="f:1")
    one, other = facts_of([told("a", "x"), told("b", "y")])
    assert one.wrong == ("y",) and other.wrong == ("x",) and one.paraphrase == "x"
    (own,) = facts_of([told("a", "x")], [{"perturbed_answer": ["z"], "paraphrased_question": "a?"}])
    assert own.wrong == ("z",) and own.questions == ("a?",)
    with pytest.raises(DataError, match="nothing is asked"):
        facts_of([Row("text", text="x", place="f:1")])
