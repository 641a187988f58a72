"""Retrieval: documents put in order for a question, and how high the right ones stand.

A decoder orders them by how likely each makes the question: log p(question | document) (query likelihood, Ponte 1998; as a
re-ranker, Sachan 2022, arXiv 2204.07496). An encoder's order is judged while it is trained, by the metric `ndcg`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from genwright.evaluate.forms import Form, Options, Row, Scored, Target

BETWEEN = "\nA question that this answers:"


def recall_at(order: Sequence[int], relevant: Sequence[int], k: int) -> float:
    """100 x the share of the right documents among the first k."""
    return 100.0 * len(set(order[:k]) & set(relevant)) / max(1, len(set(relevant)))


def ndcg_at(order: Sequence[int], relevant: Sequence[int], k: int) -> float:
    """100 x DCG over the best possible: sum over places of 1/log2(1 + place) where a right one stands (Jarvelin 2002)."""
    right = set(relevant)
    gain = sum(1 / math.log2(2 + place) for place, number in enumerate(order[:k]) if number in right)
    best = sum(1 / math.log2(2 + place) for place in range(min(k, len(right))))
    return 100.0 * gain / best


def reciprocal_rank(order: Sequence[int], relevant: Sequence[int]) -> float:
    """100 / the place of the first right one."""
    return next(100.0 / (place + 1) for place, number in enumerate(order) if number in set(relevant))


METRICS = {
    "ndcg@10": lambda order, relevant: ndcg_at(order, relevant, 10),
    "recall@1": lambda order, relevant: recall_at(order, relevant, 1),
    "recall@5": lambda order, relevant: recall_at(order, relevant, 5),
    "recall@10": lambda order, relevant: recall_at(order, relevant, 10),
    "mrr": reciprocal_rank,
}


def rank(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """The metric of each row's order; of equally likely documents the later one stands first, so that a tie is no gift."""
    asked = [(f"{text}{BETWEEN}", f" {row['query']}") for row in rows for text in row["documents"]]
    said = iter(target.likelihoods(asked))
    orders = []
    for row in rows:
        nats = [next(said).nats for _ in row["documents"]]
        orders.append(sorted(range(len(nats)), key=lambda number: (-nats[number], number in row["relevant"], number)))
    found = {
        name: [score(order, row["relevant"]) for order, row in zip(orders, rows)] for name, score in METRICS.items()
    }
    also = {name: sum(each) / len(rows) for name, each in found.items() if name != options.metric}
    return Scored(found[options.metric], [str(order[0]) for order in orders], also)


def _wrong(row: Row) -> str:
    if not row["documents"] or not all(isinstance(text, str) and text for text in row["documents"]):
        return "'documents' needs texts, none of them empty."
    inside = all(isinstance(number, int) and 0 <= number < len(row["documents"]) for number in row["relevant"])
    return "" if row["relevant"] and inside else "'relevant' needs the numbers of documents, from 0."


RETRIEVAL = Form(
    "retrieval", {"query": str, "documents": list, "relevant": list}, tuple(METRICS), rank, {}, _wrong, asks=("likelihoods",)
)  # fmt: skip
