"""lm-eval's tasks answered by us, against lm-eval's own transformers backend: the same numbers from the same rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.e2e.tiny import COLOURS, write_model

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import SUITES
from genwright.evaluate.forms import Form, Scored
from genwright.evaluate.lm import language_model, run_tasks, write_task
from genwright.evaluate.score import Scorer
from genwright.evaluate.suites import Suite, evaluate, suite_of
from genwright.models.attention import NAME
from genwright.models.generate import Sampling, generate
from genwright.models.load import load_model, load_tokenizer

pytest.importorskip("lm_eval")
STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
CHOICES = [
    {"prompt": f"Tom has a {colour} ball. The ball of Tom is", "choices": [*COLOURS, "very old"], "answer": number}
    for number, colour in enumerate(COLOURS)
] + [{"prompt": "Once upon a time", "choices": ["there was a girl", "the", "the sun"], "answer": 0}]
QUESTIONS = [
    {"prompt": f"Once upon a time, a {colour} bird", "reference": " was"} for colour in (*COLOURS, "little", "big")
]
TEXTS = [
    {"text": "Lily saw a dog. The dog was big."},
    {"text": "the sun " * 300},
    {"text": "Tom ran home.\nHe was sad."},
]


@pytest.fixture(scope="module", params=["tiny", "stories"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "tiny":
        return write_model(tmp_path_factory.mktemp("lm") / "tiny", "decoder")
    if not STORIES.exists():
        pytest.skip("the shared model is not here")
    return STORIES


@pytest.fixture(scope="module")
def ours(folder: Path) -> Scorer:
    return Scorer(load_model(folder, dtype=torch.float32, attention="sdpa"), load_tokenizer(folder), capacity=256)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    own = {"stops": (".", "\n"), "max_tokens": 12}
    suite = lambda form, rows: Suite(f"own_{form}", SUITES[form], rows, "", own)
    for form, rows in {"choice": CHOICES, "generation": QUESTIONS, "perplexity": TEXTS}.items():
        write_task(suite(form, rows), made)
    return made


NAMES = ["own_choice", "own_generation", "own_perplexity"]


@pytest.fixture(scope="module")
def theirs(folder: Path, tasks: Path) -> dict[str, Any]:
    """What lm-eval's own backend says, one row at a time."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, tasks=NAMES, task_manager=manager, bootstrap_iters=0, log_samples=True
    )  # fmt: skip


def test_every_task_has_the_same_score(ours: Scorer, tasks: Path, theirs: dict[str, Any]) -> None:
    found = run_tasks(ours, tasks, NAMES)
    scores = lambda result, task: {
        name: value for name, value in result["results"][task].items() if "," in name and "stderr" not in name
    }
    for task in NAMES[:2]:
        assert scores(found, task) == scores(theirs, task)
    assert scores(found, NAMES[2]) == pytest.approx(scores(theirs, NAMES[2]), rel=1e-5)
    assert {f"{value:.4f}" for value in scores(found, NAMES[2]).values() if value < 100} == {
        f"{value:.4f}" for value in scores(theirs, NAMES[2]).values() if value < 100
    }
    said = lambda result, task: [one["resps"] for one in sorted(result["samples"][task], key=lambda one: one["doc_id"])]
    assert said(found, NAMES[1]) == said(theirs, NAMES[1])
    for mine, other in zip(said(found, NAMES[0]), said(theirs, NAMES[0])):
        assert [one[0][1] for one in mine] == [one[0][1] for one in other]
        assert [one[0][0] for one in mine] == pytest.approx([one[0][0] for one in other], abs=2e-4)


def test_the_model_is_afterwards_as_it_was(ours: Scorer) -> None:
    ours.model.train()
    ours.likelihoods([("Tom", " ran")])
    assert ours.model.training and ours.model.config._attn_implementation == "sdpa" != NAME
    ours.model.eval()


def test_contexts_with_the_same_options_are_continued_together(ours: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        ours, "continuations", lambda texts, *way: calls.append((texts, *way)) or [f"{t}!" for t in texts]
    )
    asked = [
        ("a", {"until": "x"}),
        ("b", {"until": ["x"], "max_gen_toks": 9}),
        ("c", {"until": ["x"], "do_sample": False}),
    ]
    found = language_model(ours).generate_until([SimpleNamespace(args=one) for one in asked])
    assert found == ["a!", "b!", "c!"] and calls == [(["a", "c"], ("x",), 256), (["b"], ("x",), 9)]


@pytest.mark.parametrize("options", [{"do_sample": True}, {"temperature": 0.7}])
def test_sampling_is_refused(ours: Scorer, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="answered greedily"):
        language_model(ours).generate_until([SimpleNamespace(args=("a", options))])


def test_an_answer_as_long_as_the_context_is_refused(ours: Scorer) -> None:
    with pytest.raises(BadRequest, match="leaves no room for a question"):
        ours.continuations(["a"], [], ours.context)


def test_a_stop_ends_the_writing_at_once(ours: Scorer) -> None:
    stopped = ours._until(["x y", ""])
    encode = lambda text: ours.tokenizer.encode(text, add_special_tokens=False)
    assert stopped(encode("and then x y")) and not stopped(encode("and then x")) and not ours._until([])(encode("x y"))


def test_writing_ends_when_it_is_said_so(ours: Scorer) -> None:
    prompts, two = [ours.encode("the red house"), ours.encode("a")], lambda tokens: len(tokens) >= 2
    found = generate(ours.model, ours.tokenizer, prompts, Sampling(max_new_tokens=6), ends=set(), until=two)
    assert [len(one) for one in found] == [2, 2]


def test_only_the_end_of_a_text_ends_a_text(ours: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that end a turn in a chat are words like others, as in lm-eval."""
    before = ours.continuations(["the red house"], [], 4)
    monkeypatch.setattr("genwright.models.generate.END_OF_TURN", tuple(ours.tokenizer.get_vocab()))
    assert ours.continuations(["the red house"], [], 4) == before != [""]


def test_a_task_that_is_not_there_is_named(ours: Scorer, tasks: Path) -> None:
    with pytest.raises(BadRequest, match="has no task other"):
        run_tasks(ours, tasks, ["other"])


def test_a_form_without_a_task_of_lm_eval(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no tasks of the form 'code'"):
        write_task(Suite("a", Form("code", {}, (), lambda *_: Scored([])), [], ""), tmp_path)


def test_a_conversation_is_no_task_of_lm_eval(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "a"}], "reference": "b"}]
    with pytest.raises(BadRequest, match="own asks conversations"):
        write_task(Suite("own", SUITES["generation"], rows, "", {"stops": (), "max_tokens": 3}), tmp_path)


def test_white_space_around_an_answer_counts_in_neither(ours: Scorer, tmp_path: Path) -> None:
    said = ours.continuations([QUESTIONS[0]["prompt"]], [], 3)[0]
    rows = [{"prompt": QUESTIONS[0]["prompt"], "reference": f"  {said.strip()}\n"}]
    write_task(Suite("own", SUITES["generation"], rows, "", {"stops": (), "max_tokens": 3}), tmp_path)
    assert run_tasks(ours, tmp_path, ["own"])["results"]["own"]["exact_match,none"] == 1


class Judged:
    """A target over the scorer."""

    name = "ours"

    def __init__(self, scorer: Scorer) -> None:
        self.likelihoods, self.rolling, self.continuations = scorer.likelihoods, scorer.rolling, scorer.continuations

    def close(self) -> None:
        """Nothing is held."""


def as_suite(folder: Path, tasks: Path, task: str, **keys: str) -> Suite:
    return suite_of({"name": "s", "form": "lm-eval", "file": str(tasks), "task": task, **keys}, folder, "here")


def test_a_task_file_is_a_suite(ours: Scorer, tasks: Path, tmp_path: Path, theirs: dict[str, Any]) -> None:
    for metric, own in (("", "acc"), ("acc_norm", "acc_norm")):
        suite = as_suite(tmp_path, tasks, "own_choice", metric=metric)
        found = evaluate([suite], [Judged(ours)], say=len)["suites"][0]
        assert found["systems"]["ours"]["value"] == pytest.approx(100 * theirs["results"]["own_choice"][f"{own},none"])
        assert found["rows"] == len(CHOICES) and not found["lower_is_better"]
    found = evaluate([as_suite(tmp_path, tasks, "own_perplexity").first(2)], [Judged(ours)], say=len)["suites"][0]
    nats = ours.rolling([row["text"] for row in TEXTS[:2]])
    words = [len(re.split(r"\s+", row["text"])) for row in TEXTS[:2]]
    assert found["systems"]["ours"]["value"] == pytest.approx(-sum(nats) / sum(words)) and found["lower_is_better"]
    assert found["systems"]["ours"]["also"]["bits_per_byte"] > 0


def test_of_several_filters_the_first_counts(ours: Scorer, tmp_path: Path) -> None:
    write_task(Suite("own", SUITES["generation"], QUESTIONS, "", {"stops": (), "max_tokens": 3}), tmp_path)
    task = json.loads((tmp_path / "own.yaml").read_text())
    first = {"name": "same", "filter": [{"function": "take_first"}]}
    second = {"name": "loud", "filter": [{"function": "uppercase"}, {"function": "take_first"}]}
    said = ours.continuations([QUESTIONS[0]["prompt"]], [], 3)[0]
    rows = [{**row, "reference": said} for row in QUESTIONS]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(json.dumps(task | {"filter_list": [first, second]}))
    found = evaluate([as_suite(tmp_path, tmp_path, "")], [Judged(ours)], say=len)["suites"][0]["systems"]["ours"]
    assert found["n"] == len(QUESTIONS) and found["scores"][0] == 100


def test_task_suites_that_mean_nothing(ours: Scorer, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="does not have one task"):
        as_suite(tmp_path, tasks, "")
    with pytest.raises(BadRequest, match="There is no folder"):
        as_suite(tmp_path, tmp_path / "none", "a")
    with pytest.raises(BadRequest, match="has no task other"):
        as_suite(tmp_path, tasks, "other")
    with pytest.raises(BadRequest, match="own_choice does not measure f1"):
        evaluate([as_suite(tmp_path, tasks, "own_choice", metric="f1")], [Judged(ours)], say=len)
