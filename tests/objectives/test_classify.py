"""Classification losses against `transformers`' own models with `labels=`, and by hand."""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e import tiny
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from genwright.data.formats import Row
from genwright.data.layouts import Setting, feed_of
from genwright.models.attention import NAME
from genwright.models.families import Head
from genwright.models.load import load_model
from genwright.objectives.classify import Classification, TokenClassification

COLOURS = tuple(tiny.COLOURS)
TEXTS = [
    Row("labelled", text=words[: 9 + 5 * number], label=COLOURS[number % 4])
    for number, words in enumerate(tiny.texts()[:6])
]
TAGGED = [
    Row("tagged", words=tuple(words.split()[: 3 + number]), tags=tuple("colour" if word in COLOURS else "other" for word in words.split()[: 3 + number]))
    for number, words in enumerate(tiny.texts()[:5])
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(family: str) -> Path:
        return tiny.write_model(tmp_path_factory.mktemp(family), family)

    return made


def ours_and_theirs(folder: Path, head: Head, kind: Any) -> tuple[Any, Any]:
    torch.manual_seed(1)
    ours = load_model(folder, dtype=torch.float32, attention=NAME, head=head)
    theirs = kind.from_config(copy.deepcopy(ours.config), attn_implementation="eager").eval()
    theirs.load_state_dict(ours.state_dict())
    theirs.config.pad_token_id = 0
    return ours, theirs


def padded(rows: list[Any], fill: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def check(
    objective: Any, feed: Any, ours: Any, expected: torch.Tensor, theirs: Any, *, capacity: int, packing: bool
) -> None:
    """Value and every gradient, whether in one microbatch or several."""
    batches = feed.batches(range(len(feed)), seed=0, step=0, packing=packing, capacity=capacity)
    assert (len(batches) > 1) == (capacity < 100)
    loss = sum(
        term.total / batch.counts[term.per] for batch in batches for term in objective(ours, batch).terms.values()
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("packing, capacity", [(True, 1000), (True, 30), (False, 1000)])
def test_classification_equals_transformers(folder: Any, family: str, packing: bool, capacity: int) -> None:
    ours, theirs = ours_and_theirs(folder(family), Head("classes", COLOURS), AutoModelForSequenceClassification)
    feed = feed_of(TEXTS, Setting(Classification(), tiny.tokenizer(family), family, 64, COLOURS), 0)
    ids = [row.input_ids for row in feed.encoded]
    labels = torch.tensor([COLOURS.index(row.label) for row in TEXTS])
    expected = theirs(
        input_ids=padded(ids, 0), attention_mask=padded([[1] * len(one) for one in ids], 0), labels=labels
    ).loss
    check(Classification(), feed, ours, expected, theirs, capacity=capacity, packing=packing)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("packing, capacity", [(True, 1000), (True, 30), (False, 1000)])
def test_token_classification_equals_transformers(folder: Any, family: str, packing: bool, capacity: int) -> None:
    """Labels by hand: a word's tag at its first token, -100 at its others, at special tokens and at padding."""
    known = ("colour", "other")
    ours, theirs = ours_and_theirs(folder(family), Head("tags", known), AutoModelForTokenClassification)
    own = tiny.tokenizer(family)
    around = ([own.cls_token_id], [own.sep_token_id]) if family == "encoder" else ([], [])
    ids, labels = [], []
    for row in TAGGED:
        pieces = [own(word, add_special_tokens=False)["input_ids"] for word in row.words]
        ids.append([*around[0], *[token for piece in pieces for token in piece], *around[1]])
        of_words = [[known.index(tag), *[-100] * (len(piece) - 1)] for tag, piece in zip(row.tags, pieces)]
        labels.append(
            [*[-100] * len(around[0]), *[label for word in of_words for label in word], *[-100] * len(around[1])]
        )
    expected = theirs(
        input_ids=padded(ids, 0), attention_mask=padded([[1] * len(one) for one in ids], 0), labels=padded(labels, -100)
    ).loss
    feed = feed_of(TAGGED, Setting(TokenClassification(), own, family, 64, known), 0)
    check(TokenClassification(), feed, ours, expected, theirs, capacity=capacity, packing=packing)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_equal_scores_have_the_logarithm_of_the_number_of_classes(folder: Any, family: str) -> None:
    model = load_model(folder(family), dtype=torch.float32, attention=NAME, head=Head("classes", COLOURS[:3]))
    for parameter in model.get_submodule(model.genwright_heads[0]).parameters():
        torch.nn.init.zeros_(parameter)
    feed = feed_of(TEXTS[:3], Setting(Classification(), tiny.tokenizer(family), family, 64, COLOURS[:3]), 0)
    (batch,) = feed.batches(range(3), seed=0, step=0, packing=True, capacity=1000)
    term = Classification()(model, batch).terms["classes"]
    assert (term.total / term.count).item() == pytest.approx(math.log(3)) and term.count == 3
