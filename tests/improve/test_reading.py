"""What a model says of rows without writing: against plain forwards over each row alone, and closed forms by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.e2e import tiny

from genwright.catalogue.parts import OBJECTIVES
from genwright.data.formats import Row
from genwright.data.layouts import Setting, feed_of
from genwright.improve import reading
from genwright.models.attention import NAME
from genwright.models.families import HEADS, Head

LABELS = ("blue", "green", "red", "white")


def setting(objective: str, family: str) -> Setting:
    return Setting(OBJECTIVES[objective](), tiny.tokenizer(family), family, 128, LABELS)


def headed(head: str, family: str) -> Any:
    config = tiny.model(family).config
    config.num_labels = len(LABELS) if head == "classes" else 1
    torch.manual_seed(3)
    model = HEADS[head][family].from_config(config, attn_implementation=NAME).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return Head(head).finish_(model)


def plain(model: Any) -> Any:
    again = type(model)._from_config(model.config, attn_implementation="eager").eval()
    again.load_state_dict(model.state_dict())
    return again


@pytest.mark.parametrize(("per", "unit"), [("token", "labels"), ("byte", "bytes")])
@torch.no_grad()
def test_bits_are_the_models_own_surprise_over_labels_or_bytes(per: str, unit: str) -> None:
    model, where = headed("language", "decoder"), setting("causal", "decoder")
    rows = [Row("text", text="the red house stands"), Row("text", text="réd"), Row("text", text="the red house stands")]
    found = reading.bits_of(model, rows, where, per=per)
    for row, bits in zip(rows, found):
        ids = torch.tensor([[*where.tokenizer(row.text).input_ids, where.tokenizer.eos_token_id]])
        log_p = plain(model)(input_ids=ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None]).sum()
        size = ids.shape[1] - 1 if unit == "labels" else len(row.text.encode())
        assert bits == pytest.approx(-float(log_p) / math.log(2) / size, rel=1e-4)


@torch.no_grad()
def test_a_class_is_the_argmax_of_a_forward_over_the_text_alone() -> None:
    model, where = headed("classes", "encoder"), setting("classification", "encoder")
    rows = [Row("labelled", text=text, label="red") for text in "abcdefghijklm"]
    scores = [plain(model)(**where.tokenizer(row.text, return_tensors="pt")).logits[0] for row in rows]
    expected = [LABELS[int(score.argmax())] for score in scores]
    assert len(set(expected)) > 1
    assert reading.classes_of(model, rows, where) == expected


def test_what_a_row_is_said_to_be_is_not_looked_at() -> None:
    model, where = headed("classes", "encoder"), setting("classification", "encoder")
    rows = [Row("labelled", text=text, label="a class nobody knows") for text in tiny.texts()[:3]]
    assert len(reading.classes_of(model, rows, where)) == 3


def said(monkeypatch: pytest.MonkeyPatch, vectors: list[tuple[list[float], list[float]]]) -> None:
    """The model's embeddings are these: (question, answer) a row."""
    numbers = iter(vectors)
    monkeypatch.setattr(reading, "_feed", lambda rows, setting: list(rows))
    monkeypatch.setattr(reading, "_one_by_one", lambda feed, progress: feed)
    monkeypatch.setattr(reading, "embeddings", lambda model, batch: torch.tensor(next(numbers)))


def pair(answer: str) -> Row:
    return Row("chat", messages=({"role": "user", "content": "q"}, {"role": "assistant", "content": answer}))


def test_ndcg_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """First question: its answer is nearest, rank 1. Second: the first's answer is nearer, rank 2. Third equals the first row."""
    east, north, between = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]
    said(monkeypatch, [(east, east), (between, north), (east, east)])
    found = reading.ndcg_of(None, [pair("a"), pair("b"), pair("a")], SimpleNamespace())
    assert found == pytest.approx([100.0, 100 / math.log2(3), 100.0])


def test_a_tie_counts_against(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says the same of everything has the last rank, not the first."""
    same = [0.6, 0.8]
    said(monkeypatch, [(same, same)] * 3)
    assert reading.ndcg_of(None, [pair("a"), pair("b"), pair("c")], SimpleNamespace()) == pytest.approx([50.0] * 3)


@torch.no_grad()
def test_a_pair_is_right_where_the_chosen_answer_scores_more() -> None:
    model, where = headed("score", "decoder"), setting("reward-model", "decoder")
    ask = lambda text: ({"role": "user", "content": text},)
    answer = lambda text: ({"role": "assistant", "content": text},)
    rows = [
        Row(
            "preference",
            messages=ask(f"what colour is house {n}"),
            chosen=answer(colour),
            rejected=answer(f"not {tiny.COLOURS[n % 3]}"),
        )
        for n, colour in enumerate(tiny.COLOURS * 2)
    ]
    rows[::2] = [replace(row, chosen=row.rejected, rejected=row.chosen) for row in rows[::2]]
    feed = feed_of(rows, where, 0)
    body, expected = plain(model).model, []
    for number in range(len(rows)):
        item = feed.items([number], seed=0, step=0)[0]
        prompt, chosen, rejected = item.document
        alone = [item.input_ids[: prompt + chosen], item.input_ids[:prompt] + item.input_ids[prompt + chosen :]]
        assert len(alone[1]) == prompt + rejected
        ends = [body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] for ids in alone]
        better, worse = (float(model.score(end)) for end in ends)
        expected.append(100.0 * (better > worse))
    assert 0 < sum(expected) < 100 * len(rows)
    assert reading.pairs_right(model, rows, where) == expected
