"""What a second model says of rows: made once, of each row alone, the same however rows are cut into chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, T5Config, T5ForConditionalGeneration

from genwright.adapters.full import Full
from genwright.base.errors import RecipeError
from genwright.data.layouts import Answers, Feed, Setting
from genwright.data.templates import Encoded
from genwright.engine.build import build
from genwright.engine.columns import TOP_K, blank_columns, with_columns
from genwright.objectives.distill import Distill

from .conftest import SIZES, rows


def teacher(vocabulary: int = 50) -> Any:
    torch.manual_seed(11)
    return AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "vocab_size": vocabulary})).eval()


@torch.no_grad()
def said_alone(model: Any, row: Any, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities at labels [N, V], labels): a plain forward over the row."""
    logits_TV = model(input_ids=torch.tensor([row.input_ids])).logits[0].float()
    places = [place for place in range(1, row.num_tokens) if row.learned[place]]
    return torch.log_softmax(logits_TV[[place - 1 for place in places]] / temperature, -1), torch.tensor(places)


@pytest.mark.parametrize("pack_tokens", [40, 1000])
def test_a_teachers_columns_are_its_own_softmax(
    pack_tokens: int, recipe: Callable, built: Callable, feed: Feed
) -> None:
    one = recipe(objective=Distill(temperature=2.0), adapter=Full(), pack_tokens=pack_tokens)
    second = teacher()
    stored = with_columns(one, built(one), feed, lambda: second)
    for row in stored.encoded:
        log_probs_NV, places = said_alone(second, row, 2.0)
        kept = min(TOP_K, log_probs_NV.shape[1])
        found = row.columns["teacher_log_probs_NK"]
        assert found.shape == (len(places), kept)
        torch.testing.assert_close(found, log_probs_NV.topk(kept).values, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(log_probs_NV.gather(1, row.columns["teacher_ids_NK"]), found, atol=2e-5, rtol=1e-4)


def t5(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()


def translations() -> Feed:
    """Rows of a source and a target each, for a model that reads the one and writes the other."""
    setting = Setting(Distill(), None, "encoder-decoder", 64, start_id=0)
    pairs = [
        Encoded(row.input_ids, [True] * row.num_tokens, 0, row.row_key, source_ids=row.input_ids[::-1])
        for row in rows(6)
    ]
    return Feed(pairs, Answers(setting), 0, packs=False)


def test_a_teacher_that_reads_a_source_reads_each_rows_own(recipe: Callable) -> None:
    """Against a plain pass of `transformers`, which shifts the labels by itself; and the rows of a step carry what it said."""
    one, second, feed = recipe(objective=Distill(), adapter=Full(), pack_tokens=1000), t5(11), translations()
    stored = with_columns(one, build(one, lambda *_: t5(7)), feed, lambda: second)
    for row in stored.encoded:
        ids, source = torch.tensor([row.input_ids]), torch.tensor([row.source_ids])
        with torch.no_grad():
            log_probs_NV = torch.log_softmax(second(input_ids=source, labels=ids).logits[0], -1)
        kept = log_probs_NV.topk(min(TOP_K, 50)).values
        torch.testing.assert_close(row.columns["teacher_log_probs_NK"], kept, atol=2e-5, rtol=1e-4)
    for batch in stored.batches(range(6), seed=0, step=0, packing=True, capacity=40):
        assert batch.columns["teacher_ids_NK"].shape == (batch.labels_N.numel(), 50)
        assert one.objective(second, batch).terms["divergence"].total.abs() < 1e-3


def test_blank_columns_reach_a_step_of_either_family(recipe: Callable, feed: Feed) -> None:
    """A plan's rows: an encoder-decoder's carry what a decoder's do."""
    one = recipe(objective=Distill(), adapter=Full())
    for rows_of, config in ((feed, LlamaConfig(**SIZES)), (translations(), t5(7).config)):
        (batch, *_) = blank_columns(one, rows_of, config).batches([0], seed=0, step=0, packing=True, capacity=99)
        assert {*batch.columns} >= {*Distill.columns}
        assert batch.columns["teacher_ids_NK"].shape == (batch.labels_N.numel(), TOP_K)


def test_a_teacher_of_another_vocabulary_is_refused(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(objective=Distill(), adapter=Full())
    with pytest.raises(RecipeError, match="another vocabulary"):
        with_columns(one, built(one), feed, lambda: teacher(60))


def test_rows_are_not_changed_where_nothing_is_asked(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe()
    assert with_columns(one, built(one), feed, teacher) is feed


def test_the_planners_columns_have_the_shapes_of_the_real_ones(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(objective=Distill(), adapter=Full())
    ready = built(one)
    real, planned = with_columns(one, ready, feed, teacher), blank_columns(one, feed, ready.model.config)
    for there, here in zip(real.encoded, planned.encoded):
        assert there.columns.keys() == here.columns.keys()
        for name, column in there.columns.items():
            assert column.shape[0] == here.columns[name].shape[0] and column.dtype == here.columns[name].dtype
