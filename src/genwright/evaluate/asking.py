"""The forms that every suite can have: choosing between answers, writing an answer, being surprised by a text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import METRICS
from genwright.evaluate.forms import Form, Message, Options, Row, Scored, Target
from genwright.evaluate.score import cut


def choose(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """100 where the right choice is the likeliest after the prompt: by log p (acc), or by log p / characters (acc_norm).

    lm-eval's `multiple_choice`: a space parts prompt and choice, the first of equals is chosen.
    """
    asked = [(row["prompt"], options.own["between"] + choice) for row in rows for choice in row["choices"]]
    found = iter(target.likelihoods(asked))
    chosen: dict[str, list[int]] = {"acc": [], "acc_norm": []}
    for row in rows:
        nats = [next(found).nats for _ in row["choices"]]
        chosen["acc"].append(_first_best(nats))
        chosen["acc_norm"].append(_first_best([one / max(1, len(text)) for one, text in zip(nats, row["choices"])]))
    scores = {name: [100.0 * (a == row["answer"]) for a, row in zip(which, rows)] for name, which in chosen.items()}
    answers = [row["choices"][which] for row, which in zip(rows, chosen[options.metric])]
    also = {name: sum(one) / len(one) for name, one in scores.items() if name != options.metric}
    return Scored(scores[options.metric], answers, also)


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


def _choice_wrong(row: Row) -> str:
    if len(row["choices"]) < 2 or not all(isinstance(one, str) and one for one in row["choices"]):
        return "'choices' needs two texts or more, none of them empty."
    return "" if 0 <= row["answer"] < len(row["choices"]) else f"'answer' {row['answer']} is the number of no choice."


def write(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """The metric of what the target writes, against the reference."""
    stops, own = list(options.own["stops"]), options.own
    if own["chat"]:
        answers = [
            cut(answer, stops).strip()
            for answer in target.reply([conversation_of(row["prompt"]) for row in rows], options)
        ]
    else:
        answers = target.continuations([text_of(row["prompt"]) for row in rows], stops, own["max_tokens"])
    metric, references = METRICS[options.metric], [row["reference"] for row in rows]
    also = {"corpus": metric.corpus(answers, references)} if metric.whole else {}
    also |= {"empty": float(answers.count(""))} if "" in answers else {}
    return Scored(metric.per_row(answers, references), answers, also)


def conversation_of(prompt: str | list[Message]) -> list[Message]:
    """A text is a user's turn; a conversation stands as it is."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def text_of(prompt: str | list[Message]) -> str:
    """Errors: BadRequest for a conversation where a plain text is continued."""
    if not isinstance(prompt, str):
        raise BadRequest(
            "A conversation is no plain text.", wanted="prompts that are texts", do="leave out chat = false"
        )
    return prompt


def read_text(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """Bits of each text over its bytes (UTF-8). Beside it lm-eval's perplexities: exp(-sum log p / sum of words or bytes).

    Words are counted as lm-eval does, the pieces between white space: a text that ends in a line break has one more.
    """
    texts = [row["text"] for row in rows]
    nats, sizes = target.rolling(texts), [float(len(text.encode())) for text in texts]
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    total = sum(nats)
    also = {
        "word_perplexity": math.exp(-total / words), "byte_perplexity": math.exp(-total / sum(sizes)),
        "bits_per_byte": -total / sum(sizes) / math.log(2),
    }  # fmt: skip
    return Scored([-one / size / math.log(2) for one, size in zip(nats, sizes)], [], also, sizes, True)


WRITTEN: dict[str, Any] = {"max_tokens": 128, "temperature": 0.0}
"""Options of every form whose answers are written."""

CHOICE = Form(
    "choice", {"prompt": str, "choices": list, "answer": int}, ("acc", "acc_norm"), choose, {"between": " "}, _choice_wrong,
    asks=("likelihoods",),
)  # fmt: skip
GENERATION = Form(
    "generation", {"prompt": (str, list), "reference": str},
    ("exact-match", *(name for name in METRICS if name != "exact-match" and not METRICS[name].reads)), write,
    {**WRITTEN, "stops": (), "chat": True},
)  # fmt: skip
PERPLEXITY = Form(
    "perplexity", {"text": str}, ("bits-per-byte",), read_text, {}, lambda row: "" if row["text"] else "'text' is empty.",
    asks=("rolling",), percent=False,
)  # fmt: skip
