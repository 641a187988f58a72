"""From a question to its explanation, for a decoder and for classifiers of both families."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.e2e.tiny import model, tokenizer, write_model
from transformers import AutoModelForSequenceClassification

from genwright.base.errors import BadRequest, ModelError
from genwright.data.files import write_rows
from genwright.data.formats import Row
from genwright.improve.explaining import explain_answer, open_for_explaining, training_rows
from genwright.project.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("explaining")
    write_model(base / "decoder", "decoder")
    for family in ("encoder", "decoder"):
        config = model(family).config
        config.id2label, config.label2id = {0: "calm", 1: "loud"}, {"calm": 0, "loud": 1}
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(base / f"{family}-classes")
        tokenizer(family).save_pretrained(base / f"{family}-classes")
    rows = [{"prompt": f"what colour is house number {n}", "completion": "red" if n == 3 else "blue"} for n in range(5)]
    (base / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (base / "labelled.jsonl").write_text(
        '{"text": "the red house", "label": "loud"}\n{"text": "the river", "label": "calm"}\n'
    )
    return base


def test_a_written_answer(folder: Path) -> None:
    answering = open_for_explaining("folder:decoder", base=folder)
    question = "what colour is house number 3"
    found = explain_answer(
        answering, question, answer="red", train=training_rows(folder, "rows.jsonl"), max_tokens=4, steps=4
    )
    free = [token for token, fixed in zip(found["prompt"], found["fixed"]) if not fixed]
    assert "".join(free).strip() == question and len(free) < len(found["prompt"])
    for one in found["attributions"].values():
        assert len(one["parts"]) == len(found["prompt"])
        assert all(part == pytest.approx(0, abs=1e-6) for part, fixed in zip(one["parts"], found["fixed"]) if fixed)
    assert (
        len(found["layers"]) == 4 and found["rows"][0]["place"].endswith("rows.jsonl:4") and found["rows_compared"] == 5
    )
    own = explain_answer(answering, question, max_tokens=3, steps=2)
    assert own["tokens"][0]["likeliest"][0][0] == own["tokens"][0]["token"]  # greedy: it says what is likeliest


@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_a_class(folder: Path, family: str) -> None:
    answering = open_for_explaining(f"folder:{family}-classes", base=folder)
    found = explain_answer(answering, "the red house", train=training_rows(folder, "labelled.jsonl"), steps=4)
    assert sum(math.exp(value) for value in found["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert found["answer"] == max(found["classes"], key=lambda name: found["classes"][name]) and "tokens" not in found
    own = AutoModelForSequenceClassification.from_pretrained(folder / f"{family}-classes")
    inputs = answering.tokenizer("the red house", return_tensors="pt")
    with torch.no_grad():
        expected = own(input_ids=inputs["input_ids"]).logits.log_softmax(-1)[0]
    assert found["classes"]["loud"] == pytest.approx(float(expected[1]), abs=1e-4)
    other = explain_answer(
        answering, "the red house", answer="loud", train=training_rows(folder, "labelled.jsonl"), steps=4
    )
    assert other["rows"][0]["place"].endswith(":1") and other["rows"][0]["gradient_cosine"] == pytest.approx(
        1, abs=1e-3
    )
    with pytest.raises(BadRequest, match="no such class"):
        explain_answer(answering, "the red house", answer="green")


def test_requests_that_make_no_sense(folder: Path) -> None:
    answering = open_for_explaining("folder:decoder", base=folder)
    with pytest.raises(BadRequest, match="nothing to explain"):
        explain_answer(answering, "  ")
    with pytest.raises(BadRequest, match="too long"):
        explain_answer(answering, "the red house " * 60, answer="red")
    with pytest.raises(ModelError):
        open_for_explaining("folder:nowhere", base=folder)


def test_without_a_file_the_rows_are_those_that_the_project_learned_from(tmp_path: Path) -> None:
    assert training_rows(tmp_path, "") == []
    learned = [Row("labelled", text="the red house", label="red", place="x:1")]
    store = Store(tmp_path / ".genwright")
    with store.publish("scope", "0" * 64, {}, {}) as folder:
        (folder / "scope.json").write_text("{}")
        write_rows(folder / "train.jsonl", learned)
    assert training_rows(tmp_path, "") == learned
