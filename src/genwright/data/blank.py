"""Rows of a stated length that say nothing, as an objective lays them out: what a method is sized with before there are any data.

A row is `seq_len` tokens; where it has answers, half of it is the prompt and each answer is as long as the rest. A row of two texts
has two of `seq_len` tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from genwright.catalogue.parts import LAYOUTS
from genwright.data.layouts import Answers, Feed, Plain, Setting, layout_of
from genwright.data.templates import Encoded

BRANCHES = {"pairs": 2, "judged": 3}
"""Answers of a row: liked and not; wanted, unwanted and another row's."""

STANDS_IN = {"masked": Plain, "spans": Answers}
"""For layouts that hide tokens by the tokenizer's ids: what they lay out once that is done."""


def blank_feed(objective: Any, family: str, seq_len: int, num_rows: int, labels: tuple[str, ...] = ()) -> Feed:
    """Errors: RecipeError for a family that cannot learn the objective."""
    setting = Setting(objective, None, family, seq_len, labels, start_id=0)
    stands_in = STANDS_IN.get(objective.layout) if family in LAYOUTS[objective.layout].families else None
    layout = stands_in(setting) if stands_in else layout_of(setting)
    rows = [_row(objective, family, seq_len, number) for number in range(num_rows)]
    pooled = objective.head in ("classes", "score") and family != "decoder"
    return Feed(rows, layout, 0, packs=family != "encoder-decoder" and not pooled)


def _row(objective: Any, family: str, seq_len: int, number: int) -> Encoded:
    layout, half = objective.layout, max(1, seq_len // 2)
    rest = max(1, seq_len - half)
    if layout in BRANCHES:
        answers = BRANCHES[layout]
        total = half + answers * rest
        columns = {"desirable_D": torch.tensor([1.0, 0.0, -1.0])} if layout == "judged" else {}
        learned = [False] * half + [True] * (total - half)
        return Encoded([1] * total, learned, 0, str(number), branches=(half, *[rest] * answers), columns=columns)
    if layout == "texts":
        return Encoded([1] * 2 * seq_len, [False] * 2 * seq_len, 0, str(number), branches=(seq_len, seq_len))
    if layout == "prompts":
        return Encoded([1] * half, [False] * half, 0, str(number))
    if family == "encoder-decoder":
        return Encoded([1] * rest, [False] + [True] * (rest - 1), 0, str(number), source_ids=[1] * half)
    labels = {"classes": (0,), "tags": (0,) * seq_len, "forget": (number % 2,)}.get(layout, ())
    hidden = max(1, round(seq_len * getattr(objective, "mask_fraction", 1.0))) - 1
    return Encoded(
        [1] * seq_len, [False] + [True] * hidden + [False] * (seq_len - 1 - hidden), 0, str(number), labels=labels
    )
