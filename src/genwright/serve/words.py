"""Which words a text has, as a short vector: words and pairs of neighbours, hashed. What an encoder blurs (a form, a name) is seen here."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.float32]

BINS = 1024
MOST_CHARACTERS = 800
"""Of a text: its first ones."""


def hashed(texts: Sequence[str], bins: int = BINS) -> Words:
    """counts_BW: 1 + log(count) of each term at the bin and with the sign of its hash (feature hashing, 0902.2206)."""
    out = np.zeros((len(texts), bins), np.float32)
    for row, text in zip(out, texts):
        for term, count in Counter(_terms(text[:MOST_CHARACTERS].lower())).items():
            code = zlib.crc32(term.encode("utf-8", "replace"))
            row[code % bins] += (1.0 if code & (1 << 20) else -1.0) * (1 + np.log(count))
    return out


def rarity(counts_BW: Words) -> Words:
    """weight_W: a bin that few texts fill weighs more; the mean is 1."""
    weight = np.log((1 + len(counts_BW)) / (1 + (counts_BW != 0).sum(0))) + 1
    return np.asarray(weight / weight.mean(), np.float32)


def _terms(text: str) -> list[str]:
    words = re.findall(r"\w+|[^\w\s]", text)
    return words + [f"{one} {other}" for one, other in pairwise(words)]
