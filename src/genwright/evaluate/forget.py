"""Whether a model has forgotten: what it says, how likely it finds the truth, and what can still be got out of it.

In the manner of TOFU (Maini 2024, arXiv 2401.06121), section 2.2:

    probability    P(a | q)^(1/|a|), |a| the answer's tokens
    truth ratio    mean over wrong answers of P(w | q)^(1/|w|), over P(p | q)^(1/|p|) of the true answer in other words
    rouge-l        recall of the greedy answer against the true one
    forget quality the p-value of a Kolmogorov-Smirnov test: truth ratios of this model against those of one that never saw the
                   rows; above 0.05 the two cannot be told apart
    model utility  the harmonic mean of probability, rouge-l and max(0, 1 - truth ratio) over the sets to keep

A row without wrong answers takes those of other rows; one without the true answer in other words, the answer itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genwright.base.errors import DataError
from genwright.data.formats import Message, Row
from genwright.data.templates import encode_prompt, encode_rows
from genwright.models.generate import Sampling, context_of, generate, log_probabilities

MOST_TOKENS = 512
"""Of a text that is read for its bits a token."""
WRONG = 5
"""Wrong answers that are taken from other rows."""
ATTEMPTS = (
    "{question}",
    "Please tell me: {question}",
    "I once knew this but cannot recall it. {question}",
    "{question} Answer in one sentence and begin with the name.",
)
"""What is asked when a row does not say it in other words itself."""


@dataclass(frozen=True)
class Fact:
    """A question, its answer, and the same in other words."""

    place: str
    messages: tuple[Message, ...]
    """Up to the question."""
    answer: str
    paraphrase: str = ""
    """The true answer in other words."""
    wrong: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    """The question in other words."""

    @property
    def question(self) -> str:
        """The last thing that was asked."""
        return str(self.messages[-1]["content"])

    def row(self, answer: str | None = None) -> Row:
        """As a row to learn from, with another answer where one is given."""
        told = {"role": "assistant", "content": self.answer if answer is None else answer}
        return Row("chat", (*self.messages, told), place=self.place)


def facts_of(rows: Sequence[Row], extra: Sequence[dict[str, Any]] = (), seed: int = 0) -> list[Fact]:
    """Rows as facts; `extra` are the records with their other keys. Errors: DataError for a row without a question."""
    for row in rows:
        if row.kind != "chat" or len(row.messages) < 2:
            raise DataError(
                f"{row.place}: nothing is asked here.", wanted="a prompt and its completion", found=row.kind
            )
    answers = [str(row.messages[-1]["content"]) for row in rows]
    draw = random.Random(seed)
    facts = []
    for number, (row, answer) in enumerate(zip(rows, answers)):
        own = extra[number] if extra else {}
        others = sorted({other for other in answers if other != answer})
        wrong = own.get("perturbed_answer") or draw.sample(others, min(WRONG, len(others)))
        questions = [own["paraphrased_question"]] if own.get("paraphrased_question") else []
        facts.append(
            Fact(
                row.place,
                row.messages[:-1],
                answer,
                own.get("paraphrased_answer") or answer,
                tuple(wrong),
                tuple(questions),
            )
        )
    return facts


def truth_ratio(true: float, wrong: Sequence[float]) -> float:
    """The mean of exp(w) over exp(true), of log-probabilities a token. Two wrong ones as likely as the truth: 1."""
    return sum(math.exp(one) for one in wrong) / len(wrong) / math.exp(true)


def harmonic_mean(values: Sequence[float]) -> float:
    """The number of values over the sum of 1/v; 0 where a value is."""
    return len(values) / sum(1 / value for value in values) if all(value > 0 for value in values) else 0.0


def ks_test(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """(D, p) of the two-sample Kolmogorov-Smirnov test, exact: the share of all orders of both samples whose D is as large.

    Orders are paths from (0, 0) to (n, m); those that stay nearer than D to the diagonal are counted (Hodges 1958).
    With ties p is conservative. Errors: DataError for an empty sample.
    """
    if not one or not other:
        raise DataError("A sample is empty.", found=f"{len(one)} and {len(other)} values")
    n, m = len(one), len(other)
    steps = max(abs(m * sum(v <= at for v in one) - n * sum(v <= at for v in other)) for at in {*one, *other})
    ways = [float(n * j < steps) for j in range(m + 1)]
    for i in range(1, n + 1):  # ways / C(i + j, i) is the share of paths to (i, j), so nothing overflows
        row: list[float] = []
        for j in range(m + 1):
            before = ways[j] * i / (i + j) + (row[j - 1] * j / (i + j) if j else 0.0)
            row.append(before if abs(m * i - n * j) < steps else 0.0)
        ways = row
    return steps / (n * m), min(1.0, max(0.0, 1 - ways[m]))


def rouge_recall(answer: str, truth: str) -> float:
    """ROUGE-L recall, 0 to 1, stems compared as TOFU does."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], use_stemmer=True).score(truth, answer)["rougeL"].recall)


class Witness:
    """A model that is asked what it knows."""

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int = 64) -> None:
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens

    def per_token(self, facts: Sequence[Fact], answers: Sequence[str]) -> list[float]:
        """The log of P(answer | question) / |answer| of each, in nats."""
        pairs = [self._tokens(fact.row(answer)) for fact, answer in zip(facts, answers)]
        sums = log_probabilities(self.model, pairs)
        return [value / len(answer) for value, (_, answer) in zip(sums, pairs)]

    def bits(self, texts: Sequence[str]) -> float:
        """Bits a token of whole texts: the base-2 logarithm of perplexity."""
        rows = [Row("text", text=text) for text in texts]
        encoded = encode_rows(rows, self.tokenizer, max_tokens=min(MOST_TOKENS, context_of(self.model)))
        pairs = [(one.input_ids[:1], one.input_ids[1:]) for one in encoded]
        return -sum(log_probabilities(self.model, pairs)) / sum(len(rest) for _, rest in pairs) / math.log(2)

    def _tokens(self, row: Row) -> tuple[list[int], list[int]]:
        """The prompt's tokens, and the answer's with the token that ends it."""
        (encoded,) = encode_rows([row], self.tokenizer, max_tokens=1 << 20)
        first = encoded.learned.index(True)
        return encoded.input_ids[:first], encoded.input_ids[first:]

    def answers(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """Greedy, one each."""
        prompts = [encode_prompt(list(messages), self.tokenizer) for messages in conversations]
        written = generate(self.model, self.tokenizer, prompts, Sampling(self.max_tokens))
        return [str(self.tokenizer.decode(one, skip_special_tokens=True)).strip() for one in written]

    def truth_ratios(self, facts: Sequence[Fact]) -> list[float]:
        """One a fact. Errors: DataError for a fact with no wrong answer to compare with."""
        for fact in facts:
            if not fact.wrong:
                raise DataError(
                    f"{fact.place}: there is no wrong answer to compare with.", do="give perturbed_answer, or more rows"
                )
        asked = [(fact, answer) for fact in facts for answer in (fact.paraphrase, *fact.wrong)]
        values = iter(self.per_token([fact for fact, _ in asked], [answer for _, answer in asked]))
        return [truth_ratio(next(values), [next(values) for _ in fact.wrong]) for fact in facts]

    def knows(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """The three measures, a mean over the facts each, and their values row by row."""
        likely = [math.exp(value) for value in self.per_token(facts, [fact.answer for fact in facts])]
        said = self.answers([fact.messages for fact in facts])
        rouge = [rouge_recall(answer, fact.answer) for answer, fact in zip(said, facts)]
        ratios = self.truth_ratios(facts)
        rows = {"probability": likely, "rouge_l": rouge, "truth_ratio": ratios}
        return {name: sum(values) / len(values) for name, values in rows.items()} | {"rows": rows, "answers": said}

    def extracted(self, facts: Sequence[Fact], share: float = 0.5) -> dict[str, float]:
        """The first `share` of an answer's tokens is given, the rest asked for: how much of it comes back, exactly, from the start.

        {"tokens": the mean share of what was asked for, "rows": the share of rows of which all came back}.
        """
        pairs = [self._tokens(fact.row()) for fact in facts]
        cut = [max(1, int(len(answer) * share)) if len(answer) > 1 else 0 for _, answer in pairs]
        asked = [prompt + answer[:given] for (prompt, answer), given in zip(pairs, cut)]
        wanted = [answer[given:] for (_, answer), given in zip(pairs, cut)]
        longest = Sampling(max(map(len, wanted)))
        written = generate(self.model, self.tokenizer, asked, longest, keep_end=True)
        back = [common_start(one, other) / len(one) for one, other in zip(wanted, written)]
        return {"tokens": sum(back) / len(back), "rows": sum(value == 1 for value in back) / len(back)}

    def paraphrased(self, facts: Sequence[Fact]) -> dict[str, float]:
        """The best ROUGE-L recall over several ways to ask, a mean over the facts, and the share of facts told nearly whole."""
        ways = [fact.questions + tuple(way.replace("{question}", fact.question) for way in ATTEMPTS) for fact in facts]
        asked = [(fact, way) for fact, own in zip(facts, ways) for way in own]
        said = iter(self.answers([[*fact.messages[:-1], {"role": "user", "content": way}] for fact, way in asked]))
        best = [max(rouge_recall(next(said), fact.answer) for _ in own) for fact, own in zip(facts, ways)]
        return {"rouge_l": sum(best) / len(best), "rows": sum(value >= 0.9 for value in best) / len(best)}


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def utility(sets: dict[str, dict[str, Any]]) -> float:
    """Model utility over the sets to keep."""
    return harmonic_mean(
        [
            value
            for one in sets.values()
            for value in (one["probability"], one["rouge_l"], max(0.0, 1 - one["truth_ratio"]))
        ]
    )


def steps_to_come_back(curve: Sequence[float], before: float, share: float = 0.5) -> int | None:
    """The first step at which a relearned probability is `share` of what it was before unlearning; None where it never is."""
    return next((step for step, value in enumerate(curve) if value >= share * before), None)
