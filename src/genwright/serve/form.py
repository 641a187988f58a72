"""What a text looks like, whatever it says: how long, how many lines, whether it asks, lists options or holds figures. Twelve numbers.

An encoder puts a word problem beside the mathematics questions of an exam; that one of them lists its answers is seen here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Forms = npt.NDArray[np.float32]
"""B or V texts, E numbers."""

MOST_CHARACTERS, MOST_COUNTED = 4_000, 1_000
"""Of a text: the first ones are looked at, and the first of those are counted one by one."""
WIDTH = 12
NEAREST = 3
USUAL = 0.9
"""Quantile of an expert's own texts, each against the others, up to which a distance is usual."""
FLOOR = 0.2
"""Added to the spread of those distances: texts that all have one form still allow for a little."""

OPTION = re.compile(r"(?m)^\(?[A-E][.)] ")
SENTENCE = re.compile(r"[.!?](?:\s|$)")


def forms(texts: Sequence[str]) -> Forms:
    """(B, E): logarithms of lengths and counts, tenths of characters that are figures, capitals and signs, and five yes-or-no."""
    return np.array([_form(text[:MOST_CHARACTERS]) for text in texts], np.float32).reshape(-1, WIDTH)


def _form(text: str) -> list[float]:
    count = max(1, len(text))
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    head = text[:MOST_COUNTED]
    share = lambda among: 10 * sum(map(among, head)) / max(1, len(head))
    last = text.rstrip()[-1:]
    return [
        np.log(count), 1.5 * np.log1p(lines), share(str.isdigit), share(str.isupper),
        10 * len(re.findall(r"[^\w\s]|_", head)) / max(1, len(head)), np.log(count / max(1, len(re.findall(r"\w+", text)))),
        last == "?", last in (".", "!"), text[:1].isupper(), OPTION.search(text) is not None,
        np.log1p(text.count("?")), np.log1p(len(SENTENCE.findall(text))),
    ]  # fmt: skip


def scale(forms_BE: Forms) -> Forms:
    """scale_E: the spread of each number over all texts that are known."""
    return np.asarray(forms_BE.std(0) + 0.05, np.float32)


def apart(known_VE: Forms, form_E: Forms) -> float:
    """Mean distance to the nearest of known texts; both are scaled."""
    return float(np.sort(np.linalg.norm(known_VE - form_E, axis=1))[:NEAREST].mean())


def usual(known_VE: Forms) -> tuple[float, float]:
    """(distance up to which a text of these is usual, spread), each text left out once."""
    found = [apart(np.delete(known_VE, place, 0), form) for place, form in enumerate(known_VE)]
    return float(np.quantile(found, USUAL)), float(np.std(found)) + FLOOR


def strange(known_VE: Forms, form_E: Forms, bounds: tuple[float, float]) -> float:
    """By how many spreads a text is farther than usual; 0 for one that is not."""
    return max(0.0, (apart(known_VE, form_E) - bounds[0]) / bounds[1])
