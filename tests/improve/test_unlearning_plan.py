"""What forgetting will ask and read, counted beforehand, beside what the real run asks and reads."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.e2e.tiny import write_model

from genwright.engine import columns
from genwright.evaluate.score import Scorer
from genwright.evaluate.suites import read_suites
from genwright.improve import unlearning_plan
from genwright.improve.unlearning import Request, read, unlearn
from genwright.improve.unlearning_asked import of_suite, written_to
from genwright.models import generate
from genwright.models.load import load_config, load_tokenizer
from genwright.plan.estimate import Estimate, around
from genwright.plan.here.rungs import Asking

SUITES = """
[[suite]]
name = "which"
form = "choice"
file = "which.jsonl"

[[suite]]
name = "texts"
form = "perplexity"
file = "texts.jsonl"

[[suite]]
name = "written"
form = "generation"
file = "written.jsonl"
max_tokens = 5
"""


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("forgetting")
    write_model(folder / "model", "decoder")
    row = lambda n, colour: json.dumps({"prompt": f"what colour is house number {n}", "completion": colour}) + "\n"
    (folder / "forget.jsonl").write_text("".join(row(n, "red" if n % 2 else "blue") for n in range(1, 6)))
    (folder / "retain.jsonl").write_text("".join(row(n, "white" if n % 2 else "green") for n in range(6, 26)))
    (folder / "texts.jsonl").write_text('{"text": "the red house stands near the river"}\n' * 3)
    (folder / "which.jsonl").write_text('{"prompt": "the house is", "choices": ["red", "blue"], "answer": 0}\n' * 4)
    (folder / "written.jsonl").write_text('{"prompt": "what colour", "reference": "red"}\n' * 2)
    (folder / "suites.toml").write_text(SUITES)
    return Request(
        folder / "model", folder / "forget.jsonl", folder / "retain.jsonl", suites=(folder / "suites.toml",), texts=folder / "texts.jsonl",
        never_saw=folder / "model", steps=3, batch_size=6, learning_rate=1e-3, relearn_steps=4,
    )  # fmt: skip


def counted(monkeypatch: pytest.MonkeyPatch, request: Request, out: Path) -> Counter[str]:
    """Of a real run: batches that are read, prompts that are written to, rows that suites have read."""
    found: Counter[str] = Counter()

    def count(owner: Any, name: str, what: str, size: Any) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            found[what] += size(*args)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(generate, "_log_probabilities", "batches read", lambda *_: 1)
    count(generate, "_one_batch", "prompts", lambda _, rows, *__: len(rows))
    count(columns, "collate_items", "batches of columns", lambda *_: 1)
    count(Scorer, "of_tokens", "rows of suites", lambda _, pairs, *__: len(pairs))
    unlearn(request, out)
    return found


def planned(monkeypatch: pytest.MonkeyPatch, request: Request, second_per: str) -> float:
    """The plan's seconds of asking and relearning, where a batch that is read or a prompt costs a second, and nothing else does."""

    def seconds_of(asking: Asking) -> Any:
        reads = len(asking.reading.batches) if asking.reading else 0
        return around(float(reads if second_per == "batch" else len(asking.prompts)), 0.0, 0.0)

    def estimate(asking: Asking) -> Estimate:
        zero, spent = around(0.0, 0.0, 0.0), seconds_of(asking)
        return Estimate({"train_seconds": zero, "evaluate_seconds": spent, "seconds": spent, "host_bytes": zero,
                         "train_peak_bytes": zero}, {}, {}, ())  # fmt: skip

    monkeypatch.setattr(
        unlearning_plan, "plan_training", lambda recipe, config, feed, asking, *_, **__: estimate(asking)
    )
    monkeypatch.setattr(unlearning_plan, "plan_prompting", lambda config, asking, *_, **__: estimate(asking))
    monkeypatch.setattr(unlearning_plan, "_request", lambda *_: request)
    tokenizer = load_tokenizer(request.model)
    workshop = SimpleNamespace(
        spec=SimpleNamespace(hardware=SimpleNamespace(watts=None, usd_per_hour=None), unlearn=SimpleNamespace(never_saw="there")),
        model=request.model, tokenizer=tokenizer, config=load_config(request.model), pad_id=tokenizer.pad_token_id or 0,
        say=lambda _: None,
    )  # fmt: skip
    return unlearning_plan.plan_unlearning(workshop, request.model.parent).quantities["seconds"].value


def test_all_that_is_asked_and_read_is_in_the_time(
    request_of: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before, after, of the model that never saw the rows, with texts; suites twice; the others after each step of relearning; NPO's reference."""
    with monkeypatch.context() as patch:
        found = counted(patch, request_of, tmp_path)
    packs_of_suites = 2 * 2  # the rows of either suite that is read fit one pack, and are asked before and after
    reads = found["batches read"] + found["batches of columns"] + packs_of_suites
    assert planned(monkeypatch, request_of, "batch") == reads
    assert planned(monkeypatch, request_of, "prompt") == found["prompts"]


def test_the_second_model_of_generic_targets_is_asked_too(
    request_of: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each batch of columns goes through two models."""
    once = planned(monkeypatch, replace(request_of, method="npo"), "batch")
    assert planned(monkeypatch, replace(request_of, method="generic-targets"), "batch") == once + 1
    assert planned(monkeypatch, replace(request_of, method="gradient-difference"), "batch") == once - 1


def test_every_form_says_what_it_asks(request_of: Request) -> None:
    tokenizer = load_tokenizer(request_of.model)
    which, texts, written = (of_suite(one, tokenizer, [2, 9]) for one in read_suites(request_of.suites[0]))
    assert isinstance(which, list) and len(which) == 4 * 2
    assert isinstance(texts, list) and {row.num_tokens for row in texts} == {
        1 + len(tokenizer("the red house stands near the river", add_special_tokens=False).input_ids)
    }
    assert isinstance(written, Asking) and len(written.prompts) == 2
    assert (list(written.answers), written.max_new_tokens) == ([2, 5], 5)


def test_an_answer_that_is_given_by_half_is_asked_once_for_each_row(request_of: Request) -> None:
    """Of each row one asking, and of those to forget the half answer and four other ways to ask."""
    forget, retain, sets = read(request_of)
    asking = written_to(forget, sets, load_tokenizer(request_of.model))
    assert len(asking.prompts) == len(retain) + len(forget) * (1 + 1 + 4)
    assert min(asking.answers) > 0
