"""Scores equal the field's libraries, and values worked by hand."""

from __future__ import annotations

import math
import random

import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from tests.e2e.tiny import model, tokenizer

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import METRICS
from genwright.evaluate.metrics import command_path, perplexity
from genwright.evaluate.score import Scorer

WORDS = [
    "create",
    "a",
    "storage",
    "account",
    "in",
    "the",
    "group",
    "list",
    "show",
    "delete",
    "network",
    "disk",
    "az",
    "vm",
    "--name",
    "-n",
    "The",
    "naïve",
    "running",
    "runs",
    "\u4f60\u597d",
    "it's",
    "(2.5%)",
    "\n",
]

ROWS = 1000


def texts(number: int) -> tuple[list[str], list[str]]:
    chance = random.Random(0)
    line = lambda: " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 12)))
    wanted = [line() for _ in range(number)]
    said = [text if chance.random() < 0.1 else "" if chance.random() < 0.05 else line() for text in wanted]
    return said, wanted


def test_chrf_and_bleu_equal_sacrebleu_on_1000_rows() -> None:
    said, wanted = texts(ROWS)
    for name, sentence, corpus in (
        ("chrf", sacrebleu.sentence_chrf, sacrebleu.corpus_chrf),
        ("bleu", sacrebleu.sentence_bleu, sacrebleu.corpus_bleu),
    ):
        metric = METRICS[name]
        assert metric.per_row(said, wanted) == pytest.approx([sentence(a, [b]).score for a, b in zip(said, wanted)])
        assert metric.corpus(said, wanted) == pytest.approx(corpus(said, [wanted]).score)


def test_rouge_equals_rouge_score_on_1000_rows() -> None:
    said, wanted = texts(ROWS)
    oracle = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name, kind in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        expected = [100 * oracle.score(b, a)[kind].fmeasure for a, b in zip(said, wanted)]
        assert METRICS[name].per_row(said, wanted) == pytest.approx(expected)
        assert METRICS[name].corpus(said, wanted) == pytest.approx(sum(expected) / ROWS)


def test_exact_match_equals_lm_evals_on_1000_rows() -> None:
    metrics = pytest.importorskip("lm_eval.api.metrics")
    said, wanted = ([text.strip() for text in side] for side in texts(ROWS))
    found = METRICS["exact-match"].corpus(said, wanted)
    assert found == pytest.approx(100 * metrics.exact_match_fn(predictions=said, references=wanted)["exact_match"])
    assert 5 < found < 20


def test_perplexity_is_exp_of_transformers_loss_on_1000_rows() -> None:
    model_, tokens = model("decoder").eval(), tokenizer("decoder")
    rows = [text or "az" for text in texts(ROWS)[1]]
    nats, losses, counts = Scorer(model_, tokens).rolling(rows), [], []
    with torch.no_grad():
        for text in rows:
            ids = torch.tensor([[tokens.eos_token_id, *tokens.encode(text)]])
            losses.append(float(model_(input_ids=ids, labels=ids).loss))
            counts.append(ids.shape[1] - 1)
    assert nats == pytest.approx([-loss * count for loss, count in zip(losses, counts)], rel=1e-5, abs=1e-4)
    whole = math.exp(sum(loss * count for loss, count in zip(losses, counts)) / sum(counts))
    assert perplexity(sum(nats), sum(counts)) == pytest.approx(whole, rel=1e-6)


def test_f1_by_hand() -> None:
    """{cat, sat} against {cat, sat, down}: 2 shared of 2 and 3, so 2 * 2 / (2 + 3) = 80 %; articles and case do not count."""
    assert METRICS["f1"].per_row(["The cat sat."], ["a cat sat down"]) == pytest.approx([80.0])
    assert METRICS["f1"].per_row(["", "x"], ["", ""]) == [100.0, 0.0]


def test_exact_match_and_labels() -> None:
    assert METRICS["exact-match"].per_row([" az vm list\n", "Az vm list"], ["az vm list"] * 2) == [100.0, 0.0]
    assert METRICS["accuracy"].per_row(["Positive", "pos"], ["positive"] * 2) == [100.0, 0.0]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("az vm create -n a --no-wait", "az vm create"),
        ("az  vm\ncreate   --name a", "az vm create"),
        ("az group list", "az group list"),
        ("az network-watcher show -g x", "az network-watcher show"),
        ("", ""),
    ],
)
def test_a_commands_path_ends_at_its_first_option(command: str, path: str) -> None:
    assert command_path(command) == path


def test_command_path_scores_the_command_and_not_its_options() -> None:
    said = ["az vm create -n b", "az vm delete -n a", "sure: az vm create"]
    assert METRICS["command-path"].per_row(said, ["az vm create -n a"] * 3) == [100.0, 0.0, 0.0]


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    assert perplexity(12 * math.log(1 / 50), 12) == pytest.approx(50.0)
    with pytest.raises(BadRequest, match="nothing to take a perplexity of"):
        perplexity(0.0, 0)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].reads])
def test_what_is_read_off_a_model_scores_no_answers(name: str) -> None:
    with pytest.raises(BadRequest, match="read off a model"):
        METRICS[name].per_row(["a"], ["a"])


@pytest.mark.parametrize("name", [name for name in METRICS if not METRICS[name].reads])
def test_every_metric_gives_100_to_the_reference_itself_and_refuses_unpaired_lists(name: str) -> None:
    same = ["az storage account create", "list the disks of a group"]
    assert METRICS[name].per_row(same, same) == pytest.approx([100.0, 100.0])
    assert METRICS[name].corpus(same, same) == pytest.approx(100.0)
    assert METRICS[name].name == name
    for said, wanted in ((["a"], []), ([], [])):
        with pytest.raises(BadRequest, match="do not pair up"):
            METRICS[name].corpus(said, wanted)
