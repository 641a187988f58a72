"""Unlearning on a tiny model: what is refused, what is measured, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.e2e.tiny import write_model

from genwright.base.errors import BadRequest, ModelError
from genwright.improve.unlearning import METHODS, Request, folder_of, read, refuse_overlap, unlearn
from genwright.models.load import load_model


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("unlearning")
    write_model(folder / "model", "decoder")
    row = lambda n, colour: json.dumps({"prompt": f"what colour is house number {n}", "completion": colour}) + "\n"
    (folder / "forget.jsonl").write_text(row(1, "red") + row(2, "green") + row(3, "blue"))
    (folder / "retain.jsonl").write_text("".join(row(n, "white" if n % 2 else "green") for n in range(4, 8)))
    (folder / "texts.jsonl").write_text('{"text": "the red house stands near the river"}\n')
    return Request(
        folder / "model", folder / "forget.jsonl", folder / "retain.jsonl", steps=3, batch_size=6, learning_rate=1e-3, relearn_steps=2
    )  # fmt: skip


def test_what_is_measured(request_of: Request, tmp_path: Path) -> None:
    found = unlearn(
        replace(request_of, texts=request_of.forget.parent / "texts.jsonl", never_saw=request_of.model), tmp_path
    )
    # The model that "never saw" is the same here, so before unlearning no test can tell them apart.
    assert found["forget_quality"]["before"] == {"statistic": 0, "p_value": 1}
    assert found["before"]["forget"]["rows"] == found["never_saw"]["forget"]["rows"]
    assert found["after"]["forget"]["probability"] < found["before"]["forget"]["probability"]
    assert len(found["losses"]) == 3 and set(found["kept"]) == {"retain"} and found["before"]["bits_per_token"] > 0
    curve = found["relearned"]["unlearned"]["probability"]
    assert len(curve) == 3 and curve[2] > curve[0]
    # What was saved is the unlearned model, not the relearned one.
    kept = load_model(tmp_path / "model", dtype=torch.float32)
    again = unlearn(replace(request_of, model=tmp_path / "model", relearn_steps=0), tmp_path / "again")
    assert again["before"]["forget"]["rows"]["probability"] == pytest.approx(
        found["after"]["forget"]["rows"]["probability"], rel=1e-3
    )
    assert kept.num_parameters() > 0 and (tmp_path / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "npo"])
def test_every_method_runs_through_an_adapter(request_of: Request, tmp_path: Path, method: str) -> None:
    settings = (("layer", 1),) if method == "rmu" else ()
    found = unlearn(
        replace(
            request_of, method=method, settings=settings, adapter="lora", steps=2, learning_rate=0.0, relearn_steps=1
        ),
        tmp_path,
    )
    assert (tmp_path / "adapter" / "adapter_config.json").exists() and found["method"] == method
    assert (
        found["never_saw"] is None
        and found["forget_quality"]["p_value"] is None
        and found["forgotten"]["alike"] is None
    )


def test_an_overlap_names_the_rows(request_of: Request, tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text('{"prompt": "What colour is  house number 2", "completion": "something else"}\n')
    with pytest.raises(BadRequest, match=r"forget.jsonl:2 is .*both.jsonl:1"):
        read(replace(request_of, retain=both))
    refuse_overlap([], [])


def test_requests_that_make_no_sense(request_of: Request, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no way to unlearn"):
        read(replace(request_of, method="amnesia"))
    with pytest.raises(BadRequest, match="make no sense"):
        read(replace(request_of, keep=0.0))
    (tmp_path / "genwright.toml").write_text("")
    with pytest.raises(BadRequest, match="no model yet"):
        folder_of(".", tmp_path)
    with pytest.raises(ModelError, match=r"not on disk|no folder|There is no|is no "):
        folder_of("folder:nowhere", tmp_path)


def test_tofus_names_are_known(request_of: Request, tmp_path: Path) -> None:
    file = tmp_path / "tofu.jsonl"
    file.write_text(
        json.dumps({"question": "who", "answer": "me", "paraphrased_answer": "I", "perturbed_answer": ["you"]}) + "\n"
    )
    forget, _, _ = read(replace(request_of, forget=file))
    assert (forget[0].question, forget[0].answer, forget[0].paraphrase, forget[0].wrong) == ("who", "me", "I", ("you",))
