"""Rows that stand there twice, nearly twice, or in the test set as well.

Exact: equal after lower case and with runs of spaces as one. Near: Jaccard of the sets of 5-character pieces of at least
THRESHOLD, by MinHash (Broder 1997) in BANDS bands of ROWS values: two rows of Jaccard s meet in a band with probability
1 - (1 - s^ROWS)^BANDS, which is 0.9999 at 0.8 and 0.53 at 0.5; rows that meet are compared exactly. Leaked: 13 words in
a row are shared with a test row (Brown 2020, arXiv 2005.14165, appendix C), or all of them where a row has fewer.

Own code because it is forty lines: `datatrove` does this over files of a cluster, in four passes that write to disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PIECE, BANDS, ROWS, THRESHOLD, GRAM = 5, 24, 5, 0.8, 13
SPACES = re.compile(r"\s+")
WORD = re.compile(r"\w+")
MULTIPLIER = 0x9E3779B97F4A7C15

Hashes = NDArray[np.uint64]


def normalised(text: str) -> str:
    """Lower case, one space between words."""
    return SPACES.sub(" ", text).strip().casefold()


def exact_duplicates(texts: Sequence[str]) -> dict[int, int]:
    """Number of a row -> number of the first row that says the same."""
    first: dict[str, int] = {}
    found = {}
    for number, text in enumerate(map(normalised, texts)):
        if first.setdefault(text, number) != number:
            found[number] = first[text]
    return found


def pieces(text: str) -> Hashes:
    """The distinct hashes of a text's runs of PIECE characters, sorted; a shorter text is one piece."""
    codes = np.frombuffer(normalised(text).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    size = min(PIECE, max(1, len(codes)))
    total = np.zeros(max(1, len(codes) - size + 1), dtype=np.uint64)
    for place in range(min(size, len(codes))):  # Horner, modulo 2^64
        total = total * np.uint64(MULTIPLIER) + codes[place : place + len(total)]
    return np.unique(_mixed(total))


def _mixed(values: Hashes) -> Hashes:
    """Steele 2014's finaliser (splitmix64): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(one: Hashes, other: Hashes) -> float:
    """|A and B| / |A or B| of two sorted sets."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def signature(values: Hashes, seed: int = 0) -> Hashes:
    """The least hash of the set under each of BANDS * ROWS hash functions."""
    salts = np.random.default_rng(seed).integers(0, 2**64, size=BANDS * ROWS, dtype=np.uint64)
    return np.array([_mixed(values ^ salt).min() for salt in salts], dtype=np.uint64)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> dict[int, tuple[int, float]]:
    """Number of a row -> (an earlier row that was kept, their Jaccard). Rows that repeat another are no measure for others."""
    tables: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
    sets = [pieces(text) for text in texts]
    found = {}
    for number, values in enumerate(sets):
        bands = [band.tobytes() for band in signature(values).reshape(BANDS, ROWS)]
        met = sorted({row for table, band in zip(tables, bands) for row in table.get(band, ())})
        near = [(jaccard(sets[row], values), -row) for row in met]
        likeness, row = max(near, default=(0.0, 0))
        if likeness >= threshold:
            found[number] = (-row, likeness)
            continue
        for table, band in zip(tables, bands):
            table.setdefault(band, []).append(number)
    return found


def grams(text: str, size: int = GRAM) -> set[tuple[str, ...]]:
    """Every run of `size` words; of a shorter text, all its words as one."""
    words = WORD.findall(text.casefold())
    return {tuple(words[place : place + size]) for place in range(max(1, len(words) - size + 1))} - {()}


def leaked(train: Sequence[str], test: Sequence[str]) -> dict[int, int]:
    """Number of a training row -> number of the first test row with which it shares a run of words."""
    where: dict[tuple[str, ...], int] = {}
    for number, text in enumerate(test):
        for gram in grams(text):
            where.setdefault(gram, number)
    shared = ((number, [where[gram] for gram in grams(text) if gram in where]) for number, text in enumerate(train))
    return {number: min(rows) for number, rows in shared if rows}
