"""Texts of our own for routing and guarding, and an embedder that needs no encoder: words hashed to directions."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from genwright.serve.clusters import unit

FIELDS = {
    "bread": "flour dough yeast oven crust bake loaf knead salt sourdough rise butter",
    "stars": "planet orbit comet telescope galaxy moon gravity nebula rocket light crater sun",
    "sails": "boat mast wind harbour anchor rudder knot tide captain deck keel wave",
    "chess": "pawn rook bishop castle gambit mate endgame queen board opening knight tempo",
}
FRAMES = (
    "How does the {} change the {}?",
    "Tell me about {} and {}.",
    "Why is {} better than {} here?",
    "My {} broke the {}, what now?",
)


def asked(field: str, count: int, seed: int = 0) -> list[str]:
    """Different questions about a field."""
    rng, words = random.Random(f"{field}{seed}"), FIELDS[field].split()
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.choice(FRAMES).format(*rng.sample(words, 2))] = None
    return list(found)


class WordEmbedder:
    """Stands for serve.embed.Embedder: the sum of each word's own random direction, of length 1."""

    sha256, width = "words", 64

    def __call__(self, texts: Sequence[str]) -> Any:
        """(B, 64)."""
        return np.stack([self.one(text) for text in texts])

    def one(self, text: str) -> Any:
        """One vector."""
        words = [word.strip("?.,:!").lower() for word in text.split()]
        found = sum((self._direction(word) for word in words), np.full(self.width, 1e-6))
        return unit(found).astype(np.float32)

    def _direction(self, word: str) -> Any:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.width)
