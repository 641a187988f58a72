"""Pairs for the rung `preference`: the answer of a training row, and the model's own wrong answer to it.

The model answers greedily; where that is right, once more by chance. A row that is right both times makes no pair. Rows
are answered in chunks, and a chunk that stands on the disk is never answered again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genwright.base.files import folder_being_written, write_atomic
from genwright.catalogue.parts import METRICS
from genwright.data.files import write_rows
from genwright.data.formats import Row
from genwright.improve.lessons import LESSONS, PAIRS, answered_rows, best_so_far, pair_of
from genwright.improve.solution import Answering, Solution, open_adapter
from genwright.improve.workshop import Workshop, reference
from genwright.models.load import load_model, quiet
from genwright.models.tokenizer_files import copy_tokenizer

CHUNK = 16
"""Rows between two notes."""
CHANCE = 1.0
"""Temperature of the second answer."""


class NothingToLearn(Exception):
    """A rung has nothing to learn from; the words say why."""


def make_pairs(workshop: Workshop, rung: str) -> int:
    """Write the rung's pairs and the model that it starts from; returns how many. Errors: NothingToLearn, OutOfBudget."""
    folder = workshop.made / rung
    rows, opened = answered_rows(workshop), _Opened(workshop, rung)
    wrong = [said for first in range(0, len(rows), CHUNK) for said in _chunk(workshop, opened, folder, rows, first)]
    pairs = [pair_of(row, answer) for row, answer in zip(rows, wrong) if answer is not None]
    if not pairs:
        raise NothingToLearn(
            f"{rung}: the model gave no wrong answer to {len(rows)} training rows, so there is nothing to prefer"
        )
    write_rows(folder / PAIRS, pairs)
    return len(pairs)


class _Opened:
    """What the rung starts from, as one model; loaded when the first chunk is not on the disk."""

    def __init__(self, workshop: Workshop, rung: str) -> None:
        self.workshop, self.rung = workshop, rung
        best, out = best_so_far(workshop, rung), workshop.made / rung / LESSONS / "start"
        if best.adapter and not out.exists():
            fold(Path(best.model), Path(best.adapter), out)
        self.start = out if best.adapter else Path(best.model)

    @cached_property
    def answering(self) -> Answering:
        """Over that model, with no examples shown."""
        return Answering(Solution(self.rung, str(self.start)), (), precision=self.workshop.spec.adapt.precision)


def fold(model: Path, adapter: Path, out: Path) -> None:
    """Write a model with its adapter folded in, in float32, so that no small change is rounded away."""
    with folder_being_written(out) as folder, quiet():
        whole = open_adapter(load_model(model, dtype=torch.float32), adapter).merge_and_unload(safe_merge=True)
        whole.save_pretrained(folder, safe_serialization=True)
        copy_tokenizer(model, folder)


def _chunk(workshop: Workshop, opened: _Opened, folder: Path, rows: Sequence[Row], first: int) -> list[str | None]:
    """The wrong answers to some rows, None where there is none; read where they stand on the disk."""
    path = folder / LESSONS / "answers" / f"{first:06d}.json"
    if path.exists():
        return list(json.loads(path.read_text(encoding="utf-8")))
    wrong = wrong_answers(workshop, opened.answering, rows[first : first + CHUNK], first)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(wrong, ensure_ascii=False))
    workshop.events.write(
        "progress", stage="adapt", what="answers training rows", done=min(len(rows), first + CHUNK), total=len(rows), unit="rows"
    )  # fmt: skip
    return wrong


def wrong_answers(workshop: Workshop, answering: Any, rows: Sequence[Row], number: int) -> list[str | None]:
    """A wrong answer to each row: the greedy one, else one by chance, whose seed is the number of the first row."""
    greedy = replace(workshop.sampling, temperature=0.0)
    drawn = replace(greedy, temperature=CHANCE, seed=workshop.spec.project.seed + number)
    within = lambda *_: workshop.within_budget()
    ask: Any = lambda asked, sampling: answering.answer(asked, sampling, within) if asked else []
    wrong = _if_wrong(workshop, rows, ask(rows, greedy))
    right = [place for place, answer in enumerate(wrong) if answer is None]
    again = [rows[place] for place in right]
    for place, answer in zip(right, _if_wrong(workshop, again, ask(again, drawn))):
        wrong[place] = answer
    return wrong


def _if_wrong(workshop: Workshop, rows: Sequence[Row], answers: Sequence[str]) -> list[str | None]:
    """Each answer that scores worse than the row's own; an empty one teaches nothing."""
    metric, right = METRICS[workshop.metric], [reference(row) for row in rows]
    sign = 1 if metric.higher_is_better else -1
    scored = zip(answers, metric.per_row(list(answers), right), metric.per_row(right, right)) if rows else ()
    return [answer if answer and sign * score < sign * best else None for answer, score, best in scored]
