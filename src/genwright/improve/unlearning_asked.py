"""What the stage `unlearn` asks, counted before anything runs: prompts that are written to, rows that are read, and in which batches.

One *asking* is what `unlearning.measured` does with a model; suites are asked besides. A suite's form is run against a target
that answers nothing and remembers the first thing that it is asked, so every form is counted as it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genwright.data.pack import pack
from genwright.data.templates import Encoded, encode_prompt
from genwright.evaluate.forget import ATTEMPTS, Fact
from genwright.evaluate.forms import Options
from genwright.evaluate.suites import Suite
from genwright.plan.here.rungs import Asking

ANSWER_TOKENS = 64
"""The longest answer that `evaluate.forget.Witness` lets a model write."""
ROWS = 16
"""That `models.generate` takes at once."""
PACK = 2048
"""Tokens that `evaluate.score.Scorer` takes at once."""
SUITE_TOKENS = 128
"""Of an answer to a suite that says nothing else."""


def written_to(forget: Sequence[Fact], sets: Mapping[str, Sequence[Fact]], tokenizer: Any) -> Asking:
    """Every row once, those to forget again with half of their answer given, and in other words."""
    length = lambda fact: len(encode_prompt(list(fact.messages), tokenizer))
    again = [fact for fact in forget for _ in range(1 + len(ATTEMPTS) + len(fact.questions))]
    facts = [*all_facts(forget, sets), *again]
    answers = [len(tokenizer(fact.answer, add_special_tokens=False).input_ids) for fact in facts]
    return Asking([length(fact) for fact in facts], answers, ANSWER_TOKENS)


def all_facts(forget: Sequence[Fact], sets: Mapping[str, Sequence[Fact]]) -> list[Fact]:
    """In one order: those of each set, then those to forget."""
    return [*(fact for own in sets.values() for fact in own), *forget]


def read_at_once(forget: Sequence[Fact], sets: Mapping[str, Sequence[Fact]]) -> list[list[int]]:
    """Numbers of `all_facts`, a list a batch: of each set every answer, then the answer in other words and the wrong ones.

    Wrong answers are other rows' own, so a row stands for each of its readings.
    """
    batches: list[list[int]] = []
    first = 0
    for facts in (*sets.values(), forget):
        numbers = range(first, first + len(facts))
        first += len(facts)
        batches += in_batches(list(numbers))
        batches += in_batches([n for n, fact in zip(numbers, facts) for _ in range(1 + len(fact.wrong))])
    return batches


def in_batches(numbers: Sequence[int]) -> list[list[int]]:
    """As `models.generate.log_probabilities` takes them."""
    return [list(numbers[start : start + ROWS]) for start in range(0, len(numbers), ROWS)]


class _Heard(Exception):
    """The first thing that a suite asked: (kind, what, tokens that an answer may have)."""


class _Listener:
    """A target that hears one question and answers none."""

    name = "plan"

    def reply(self, conversations: Any, options: Options) -> Any:
        raise _Heard("chat", conversations, options.own.get("max_tokens", SUITE_TOKENS))

    def continuations(self, texts: Any, stops: Any, max_tokens: int) -> Any:
        raise _Heard("text", texts, max_tokens)

    def likelihoods(self, pairs: Any) -> Any:
        raise _Heard("pairs", pairs, 0)

    def rolling(self, texts: Any) -> Any:
        raise _Heard("pairs", [("", text) for text in texts], 0)

    def close(self) -> None:
        pass


def of_suite(suite: Suite, tokenizer: Any, answers: Sequence[int]) -> Asking | list[Encoded]:
    """What a suite has written, or the rows that it has read; a written answer is taken to be as long as `answers`."""
    try:
        suite.form.run(_Listener(), suite.rows, Options(suite.metric, 0, suite.own))
    except _Heard as heard:
        kind, what, tokens = heard.args
    else:
        return []
    if kind == "pairs":
        return [_encoded(tokenizer, *pair) for pair in what]
    length: Callable[[Any], int] = (
        (lambda one: len(encode_prompt(list(one), tokenizer)))
        if kind == "chat"
        else lambda one: len(tokenizer(one).input_ids)
    )
    return Asking([length(one) for one in what], [min(one, tokens) for one in answers], tokens)


def _encoded(tokenizer: Any, context: str, answer: str) -> Encoded:
    before, after = (len(tokenizer(text, add_special_tokens=False).input_ids) for text in (context, answer))
    before = max(1, before)
    return Encoded([0] * (before + after), [False] * before + [True] * after, 0, "")


def packed(rows: Sequence[Encoded]) -> list[list[int]]:
    """Numbers of the rows that a scorer lays out together; what they share is counted each time."""
    return [list(one) for one in pack([row.num_tokens for row in rows], PACK)]
