"""Masked and span-corruption losses equal `transformers`' on the very batch that the step sees."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e import tiny
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from genwright.data.formats import Row
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.models.attention import NAME
from genwright.models.load import load_model
from genwright.objectives.language import Instruction, Masked, SpanCorruption


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(family: str) -> Path:
        return tiny.write_model(tmp_path_factory.mktemp(family), family)

    return made


def feed(objective: Any, family: str) -> Feed:
    texts = [*tiny.texts()[:4], "a", "red house", " ".join(tiny.texts()[:3])]
    rows = [Row("text", text=words) for words in texts]
    if isinstance(objective, Instruction):
        rows = [
            Row("chat", messages=({"role": "user", "content": f"say {words}"}, {"role": "assistant", "content": words}))
            for words in texts
        ]
    return feed_of(rows, Setting(objective, tiny.tokenizer(family), family, 64), 0)


def loss_of(objective: Any, model: Any, batches: Any) -> torch.Tensor:
    return sum(objective(model, batch).terms["tokens"].total / batch.counts["tokens"] for batch in batches)


def batches_of(made: Feed, **options: Any) -> Any:
    return made.batches(range(len(made)), seed=1, step=2, **{"packing": True, "capacity": 1000, **options})


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("packing", [False, True])
def test_masked_loss_and_gradients_equal_berts(folder: Any, whole_words: bool, packing: bool) -> None:
    objective = Masked(whole_words=whole_words)
    ours = load_model(folder("encoder"), dtype=torch.float32, attention=NAME)
    theirs = AutoModelForMaskedLM.from_pretrained(folder("encoder"), attn_implementation="eager").eval()
    made = feed(objective, "encoder")
    shown = made.items(range(len(made)), seed=1, step=2)
    width = max(len(item.input_ids) for item in shown)
    ids_BT, labels_BT = torch.zeros(len(shown), width, dtype=torch.int64), torch.full((len(shown), width), -100)
    mask_BT = torch.zeros(len(shown), width, dtype=torch.int64)
    for row, item in enumerate(shown):
        ids_BT[row, : len(item.input_ids)], mask_BT[row, : len(item.input_ids)] = torch.tensor(item.input_ids), 1
        labels_BT[row, list(item.positions)] = torch.tensor(item.labels)
    expected = theirs(input_ids=ids_BT, attention_mask=mask_BT, labels=labels_BT).loss
    found = loss_of(objective, ours, batches_of(made, packing=packing))
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    found.backward()
    expected.backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("objective", [SpanCorruption(), Instruction()])
@pytest.mark.parametrize("capacity", [1000, 60])
def test_an_encoder_decoders_loss_and_gradients_equal_t5s(folder: Any, objective: Any, capacity: int) -> None:
    """The source's padding masked, the target shifted by T5 itself from the labels, -100 at its padding."""
    ours = load_model(folder("encoder-decoder"), dtype=torch.float32, attention=NAME)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder("encoder-decoder")).eval()
    made = feed(objective, "encoder-decoder")
    shown = made.items(range(len(made)), seed=1, step=2)
    pad = lambda rows, fill: torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=fill
    )
    source_BS, labels_BT = pad([item.source_ids for item in shown], 0), pad([item.labels for item in shown], -100)
    mask_BS = pad([[1] * len(item.source_ids) for item in shown], 0)
    expected = theirs(input_ids=source_BS, attention_mask=mask_BS, labels=labels_BT).loss
    batches = batches_of(made, capacity=capacity)
    assert (len(batches) > 1) == (capacity == 60)
    found = loss_of(objective, ours, batches)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    found.backward()
    expected.backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-4)
