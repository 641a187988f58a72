"""Unlearning on a tiny model: what is refused, what is measured, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.e2e.tiny import write_model

from genwright.base.errors import BadRequest, Interrupted, ModelError
from genwright.improve.unlearning import METHODS, Request, compared, constants, folder_of, read, refuse_overlap, unlearn
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
    with pytest.raises(BadRequest, match=r"forget.jsonl:2 is .*both.jsonl:1"):
        read(replace(request_of, also=(both,)))
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


def test_constants() -> None:
    assert constants(["layer=3", "beta=1e-1"]) == (("layer", 3), ("beta", 0.1))
    with pytest.raises(BadRequest, match="KEY=NUMBER"):
        constants(["beta"])


def test_benchmarks_are_asked_before_and_after(request_of: Request, tmp_path: Path) -> None:
    folder = request_of.model.parent
    rows = [
        {"prompt": f"the {a} house stands near the", "choices": [" red", " blue"], "answer": n % 2}
        for n, a in enumerate("abcdef")
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.toml").write_text('form = "choice"\nfile = "sums.jsonl"\n')
    said: list[str] = []
    found = unlearn(replace(request_of, suites=(folder / "sums.toml",), relearn_steps=0), tmp_path, said.append)
    sums = found["benchmarks"]["sums"]
    assert sums["rows"] == 6 and sums["difference"] == pytest.approx(sums["after"] - sums["before"])
    assert (
        sums["holds"] == (sums["after"] >= 0.9 * sums["before"])
        and "sums: 6 rows, acc; a true difference below" in said[0]
    )
    assert any(one.startswith("before on sums") for one in said) and any(
        one.startswith("after on sums") for one in said
    )


@pytest.mark.parametrize(("lower", "after", "holds"), [
    (False, 45.0, True), (False, 44.9, False), (True, 55.5, True), (True, 55.7, False),
])  # fmt: skip
def test_the_bound_of_a_benchmark(monkeypatch: pytest.MonkeyPatch, lower: bool, after: float, holds: bool) -> None:
    change = dict.fromkeys(("difference", "low", "high", "p_holm", "verdict"), 0.0)
    suite = {"name": "s", "metric": "m", "rows": 1, "lower_is_better": lower, "minimum_detectable_difference": None,
             "systems": {"before": {"value": 50.0}, "after": {"value": after}}}  # fmt: skip
    monkeypatch.setattr("genwright.improve.unlearning.told", lambda *_: {"suites": [suite], "comparisons": [change]})
    assert compared([None], {}, 0.9)["s"]["holds"] is holds


def test_a_stop_ends_the_training(request_of: Request, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="Stopped on request at step 1 of unlearning"):
        unlearn(request_of, tmp_path / "out", stop=lambda: True)
    assert not (tmp_path / "out").exists()
