"""What a model says of rows without writing a word: their classes, their tags, how surprised it is by them, which of two
answers it prefers, and which of all answers lies nearest to a question.

Legend: Q questions, A answers, H width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from genwright.data.collate import Batch
from genwright.data.formats import Row
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.models.families import scores_at, tags_at
from genwright.objectives.classify import class_scores
from genwright.objectives.contrast import embeddings
from genwright.objectives.language import label_log_probabilities, model_inputs

Progress = Callable[[int, int], Any]


@torch.no_grad()
def classes_of(model: Any, rows: Sequence[Row], setting: Setting, progress: Progress | None = None) -> list[str]:
    """The likeliest class of each text, by name. What a row is said to be is not looked at."""
    feed = _feed([replace(row, label=setting.labels[0]) for row in rows], setting)
    found = [int(class_scores(model, batch).argmax(-1)) for batch in _one_by_one(feed, progress)]
    return [setting.labels[index] for index in found]


@torch.no_grad()
def tags_of(model: Any, rows: Sequence[Row], setting: Setting, progress: Progress | None = None) -> list[str]:
    """The likeliest tag of each word, separated by spaces; words beyond the context have none."""
    feed = _feed([replace(row, tags=(setting.labels[0],) * len(row.words)) for row in rows], setting)
    found = [
        tags_at(model, model_inputs(batch), batch.positions_N).argmax(-1).tolist()
        for batch in _one_by_one(feed, progress)
    ]
    return [" ".join(setting.labels[index] for index in row) for row in found]


@torch.no_grad()
def bits_of(
    model: Any, rows: Sequence[Row], setting: Setting, *, per: str, progress: Progress | None = None
) -> list[float]:
    """How surprised the model is by each text: -log2 p of its labels, over their number or over the text's bytes.

    Labels are what the objective learns: every token of a text, or the hidden ones, hidden by the chance of step 0.
    """
    feed = _feed(rows, setting)
    totals = {row.key: [0.0, 0.0] for row in rows}
    for encoded, batch in zip(feed.encoded, _one_by_one(feed, progress)):
        log_p_N = label_log_probabilities(model, batch)
        total = totals[encoded.row_key.partition(":")[0]]
        total[0] -= float(log_p_N.sum()) / math.log(2)
        total[1] += log_p_N.numel()
    times = Counter(row.key for row in rows)  # equal rows have one key: their bits stand in one total
    size = lambda row: times[row.key] * len(row.text.encode()) if per == "byte" else totals[row.key][1]
    return [totals[row.key][0] / max(1.0, size(row)) for row in rows]


@torch.no_grad()
def ndcg_of(model: Any, rows: Sequence[Row], setting: Setting, progress: Progress | None = None) -> list[float]:
    """100 / log2(1 + rank) of each question's answer among all these rows' different answers, by cosine.

    nDCG (Jarvelin 2002) with one relevant document. Answers as near as the right one stand before it.
    """
    both = torch.stack([embeddings(model, batch) for batch in _one_by_one(_feed(rows, setting), progress)])
    question_QH, answer_QH = both.unbind(1)
    texts = [str(row.conversation[-1]["content"]) for row in rows]
    firsts = sorted({text: number for number, text in reversed(list(enumerate(texts)))}.values())
    cosine_QA, right_Q1 = question_QH @ answer_QH[firsts].T, (question_QH * answer_QH).sum(-1, keepdim=True)
    other_QA = torch.tensor([[texts[first] != text for first in firsts] for text in texts])
    rank_Q = 1 + ((cosine_QA >= right_Q1) & other_QA).sum(-1)
    return (100 / torch.log2(1.0 + rank_Q)).tolist()


@torch.no_grad()
def pairs_right(model: Any, rows: Sequence[Row], setting: Setting, progress: Progress | None = None) -> list[float]:
    """100 where the chosen answer scores above the rejected one, else 0."""
    feed = _feed(rows, setting)
    scores = [
        scores_at(model, model_inputs(batch), batch.columns["last_D"]).flatten().tolist()
        for batch in _one_by_one(feed, progress)
    ]
    return [100.0 * (chosen > rejected) for chosen, rejected in scores]


READERS: dict[str, Callable[..., list[float]]] = {
    "bits-per-token": partial(bits_of, per="token"),
    "bits-per-byte": partial(bits_of, per="byte"),
    "ndcg": ndcg_of,
    "pair-accuracy": pairs_right,
}
"""Metric -> (model, rows, setting, progress) to one score a row."""


def _feed(rows: Sequence[Row], setting: Setting) -> Feed:
    return feed_of(rows, setting, int(setting.tokenizer.pad_token_id or 0))


def _one_by_one(feed: Feed, progress: Progress | None) -> Iterator[Batch]:
    """Each row as a microbatch of its own: what is said of a row does not depend on its neighbours."""
    for number in range(len(feed)):
        yield feed.batches([number], seed=0, step=0, packing=True, capacity=1 << 60)[0]
        if progress is not None:
            progress(number + 1, len(feed))
