"""Error analysis: which rows still fail, in clusters of like questions, and what each rung fixed or broke.

Questions are TF-IDF vectors of unit length (`improve.examples`); clusters are spherical k-means (Dhillon 2001): each row
goes to the centre of largest cosine, each centre becomes the direction of its rows' sum. No chance is involved: the first centre is
the row nearest to the mean of all, each next one the row furthest from those before it.

Legend: N rows, K clusters, W terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genwright.base.files import json_lines
from genwright.improve.examples import terms

EXAMPLES_SHOWN = 3
MOST_CLUSTERS = 6
RIGHT = 99.5
"""A row fails where its score is below this, of 100; where lower is better, where it is in the worst quarter."""

Row = dict[str, Any]


def error_analysis(rungs: Sequence[tuple[str, Path]], higher_is_better: bool = True) -> dict[str, Any]:
    """{"clusters": failing validation rows of the last rung, "changes": what each rung fixed and broke against the one before}."""
    read = [(name, json_lines(path)) for name, path in rungs]
    if not read:
        return {"clusters": [], "changes": []}
    failing = [failed(rows, higher_is_better) for _, rows in read]
    last = [row for row, wrong in zip(read[-1][1], failing[-1]) if wrong]
    pairs = zip(zip(read, failing), zip(read[1:], failing[1:]))
    changes = [_change(before[0], after[0], after[1], wrong_before, wrong_after)
               for (before, wrong_before), (after, wrong_after) in pairs]  # fmt: skip
    return {
        "rung": read[-1][0],
        "failing": len(last),
        "rows": len(read[-1][1]),
        "clusters": clusters(last),
        "changes": changes,
    }


def failed(rows: Sequence[Row], higher_is_better: bool) -> list[bool]:
    """Which rows fail."""
    scores = np.array([row["score"] for row in rows], dtype=float)
    if higher_is_better:
        return [bool(score < RIGHT) for score in scores]
    return [bool(score > bound) for bound in [np.percentile(scores, 75)] for score in scores]


def _change(before: str, after: str, rows: Sequence[Row], wrong_before: list[bool], wrong_after: list[bool]) -> Row:
    fixed = [row for row, old, new in zip(rows, wrong_before, wrong_after) if old and not new]
    broke = [row for row, old, new in zip(rows, wrong_before, wrong_after) if new and not old]
    shown = lambda found: [_short(row) for row in found[:EXAMPLES_SHOWN]]
    return {"before": before, "after": after, "fixed": len(fixed), "broke": len(broke),
            "fixed_examples": shown(fixed), "broke_examples": shown(broke)}  # fmt: skip


def _short(row: Row) -> Row:
    return {key: str(row.get(key, ""))[:200] for key in ("prompt", "reference", "prediction")}


def clusters(rows: Sequence[Row]) -> list[Row]:
    """Failing rows in clusters, largest first: their commonest words, how many, and the examples nearest to the centre."""
    if not rows:
        return []
    vectors_NW, words = vectors([row["prompt"] for row in rows])
    count = min(MOST_CLUSTERS, max(1, int(np.sqrt(len(rows) / 2))))
    which_N, centres_KW = k_means(vectors_NW, count)
    found = [
        _cluster(rows, vectors_NW, which_N == k, centres_KW[k], words) for k in range(count) if (which_N == k).any()
    ]
    return sorted(found, key=lambda one: -one["rows"])


def _cluster(
    rows: Sequence[Row], vectors_NW: np.ndarray, inside_N: np.ndarray, centre_W: np.ndarray, words: list[str]
) -> Row:
    members = np.flatnonzero(inside_N)
    nearest = members[np.argsort(-(vectors_NW[members] @ centre_W), kind="stable")][:EXAMPLES_SHOWN]
    telling = [words[place] for place in np.argsort(-centre_W, kind="stable") if not words[place].endswith("~")][:4]
    return {"rows": len(members), "words": telling, "examples": [_short(rows[place]) for place in nearest]}


def vectors(texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """TF-IDF vectors of length 1, and the term of each place."""
    counted = [Counter(terms(text)) for text in texts]
    documents = Counter(term for counts in counted for term in counts)
    words = sorted(documents)
    place = {word: number for number, word in enumerate(words)}
    found_NW = np.zeros((len(texts), max(1, len(words))))
    for row, counts in enumerate(counted):
        for term, count in counts.items():
            found_NW[row, place[term]] = (1 + np.log(count)) * (1 + np.log((1 + len(texts)) / (1 + documents[term])))
    norms = np.linalg.norm(found_NW, axis=1, keepdims=True)
    return found_NW / np.where(norms == 0, 1, norms), words or [""]


def k_means(vectors_NW: np.ndarray, count: int, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """(cluster of each row, unit centres)."""
    chosen = [int(np.argmax(vectors_NW @ vectors_NW.mean(0)))]
    while len(chosen) < count:
        closeness = (vectors_NW @ vectors_NW[chosen].T).max(1)
        closeness[chosen] = np.inf
        chosen.append(int(np.argmin(closeness)))
    centres_KW = vectors_NW[chosen].copy()
    which_N = np.full(len(vectors_NW), -1)
    for _ in range(rounds):
        nearest = (vectors_NW @ centres_KW.T).argmax(1)
        if (nearest == which_N).all():
            break
        which_N = nearest
        for k in range(count):
            total_W = vectors_NW[which_N == k].sum(0)
            norm = np.linalg.norm(total_W)
            centres_KW[k] = total_W / norm if norm else centres_KW[k]
    return which_N, centres_KW
