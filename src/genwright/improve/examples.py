"""Few-shot examples: the training rows nearest to a question, by TF-IDF over words and groups of letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from genwright.data.formats import Row

Message = dict[str, Any]


def terms(text: str) -> list[str]:
    """Words, and the 4-letter groups of each, in lower case."""
    words = re.findall(r"\w+", text.lower())
    letters = [f"{word[i : i + 4]}~" for word in words for i in range(max(0, len(word) - 3))]
    return words + letters


class NearestExamples:
    """Built once over the training rows; ties go to the earlier row."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        counted = [Counter(terms(question(row))) for row in self.rows]
        documents = Counter(term for counts in counted for term in counts)
        self.place = {term: place for place, term in enumerate(sorted(documents))}
        self.weight = np.array(
            [np.log((1 + len(counted)) / (1 + documents[term])) + 1 for term in sorted(documents)], dtype=np.float32
        )
        self.vectors = np.stack([self._vector(counts) for counts in counted])

    def _vector(self, counts: Counter[str]) -> np.ndarray:
        """(1 + log tf) * idf, of length 1."""
        vector = np.zeros(len(self.place), dtype=np.float32)
        for term, count in counts.items():
            if term in self.place:
                vector[self.place[term]] = (1 + np.log(count)) * self.weight[self.place[term]]
        norm = float(np.linalg.norm(vector))
        return vector / norm if norm else vector

    def nearest(self, query: str, k: int) -> list[Row]:
        """The k rows of highest cosine, best last: it then stands next to the question."""
        closeness = self.vectors @ self._vector(Counter(terms(query)))
        return [self.rows[place] for place in np.argsort(-closeness, kind="stable")[:k][::-1]]


def question(row: Row) -> str:
    """What a row asks: its last turn before the answer."""
    return str(row.messages[-2]["content"]) if len(row.messages) > 1 else row.text


def few_shot_messages(asked: Sequence[Message], examples: Sequence[Row]) -> list[Message]:
    """The conversation with the examples' turns before its last question; a system turn stays first and is not repeated."""
    system = [dict(message) for message in asked[:1] if message["role"] == "system"]
    shown = [dict(message) for row in examples for message in row.conversation if message["role"] != "system"]
    return [*system, *shown, *(dict(message) for message in asked[len(system) :])]
