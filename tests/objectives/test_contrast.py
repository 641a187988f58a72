"""The contrastive loss against the formula of sentence-transformers' MultipleNegativesRankingLoss written out, and by hand."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e import tiny

from genwright.adapters.full import Full
from genwright.base.errors import RecipeError
from genwright.data.formats import Row
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.models.attention import NAME
from genwright.models.families import Head
from genwright.models.load import load_model
from genwright.objectives.contrast import Contrastive

PAIRS = [(f"what colour is house {number}", words[: 12 + 6 * number]) for number, words in enumerate(tiny.texts()[:5])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(family: str) -> Path:
        return tiny.write_model(tmp_path_factory.mktemp(family), family)

    return made


def feed(family: str, pairs: list[tuple[str, str]] = PAIRS) -> Feed:
    rows = [
        Row("chat", messages=({"role": "user", "content": one}, {"role": "assistant", "content": other}))
        for one, other in pairs
    ]
    return feed_of(rows, Setting(Contrastive(), tiny.tokenizer(family), family, 64), 0)


def loss_of(objective: Contrastive, model: Any, made: Feed, packing: bool) -> torch.Tensor:
    (batch,) = made.batches(range(len(made)), seed=0, step=0, packing=packing, capacity=10_000)
    (term,) = objective(model, batch).terms.values()
    assert term.per == "pairs" and batch.counts["pairs"] == len(made) == term.count
    return term.total / batch.counts["pairs"]


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equals_the_published_formula_on_texts_read_alone(
    folder: Any, family: str, packing: bool, temperature: float
) -> None:
    """Scores = cos_sim(a, b) * scale, scale = 20; CrossEntropyLoss(scores, [0, 1, ...]). Mean pooling; values and gradients."""
    ours = load_model(folder(family), dtype=torch.float32, attention=NAME, head=Head("embedding"))
    plain = load_model(folder(family), dtype=torch.float32, attention="eager", head=Head("embedding"))
    own = tiny.tokenizer(family)
    vectors = [
        [plain(input_ids=torch.tensor([own(words)["input_ids"]])).last_hidden_state[0].mean(0) for words in pair]
        for pair in PAIRS
    ]
    total = 0.0
    for right, (query, _) in enumerate(vectors):
        scores = torch.stack([torch.cosine_similarity(query, answer, dim=0) / temperature for _, answer in vectors])
        total = total - (scores[right] - scores.exp().sum().log())
    expected = total / len(PAIRS)
    found = loss_of(Contrastive(temperature), ours, feed(family), packing)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(found.item() - math.log(len(PAIRS))) > 1e-3
    found.backward()
    expected.backward()
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-3)


def test_pairs_that_are_all_the_same_have_the_logarithm_of_their_number(folder: Any) -> None:
    model = load_model(folder("encoder"), dtype=torch.float32, attention=NAME, head=Head("embedding"))
    assert loss_of(Contrastive(), model, feed("encoder", [PAIRS[0]] * 4), True).item() == pytest.approx(
        math.log(4), abs=1e-5
    )


def test_a_step_that_is_not_one_microbatch_is_refused() -> None:
    recipe = Recipe(Contrastive(), Full(), "fp32", steps=1, batch_size=5, learning_rate=1e-3, pack_tokens=60)
    with pytest.raises(RecipeError, match=r"raise adapt\.pack_tokens to") as refused:
        microbatches_of_step(recipe, feed("encoder"), 0)
    enough = int(str(refused.value).split("adapt.pack_tokens to ")[1].split(",")[0])
    _, batches = microbatches_of_step(
        Recipe(Contrastive(), Full(), "fp32", 1, 5, 1e-3, pack_tokens=enough), feed("encoder"), 0
    )
    assert len(batches) == 1
