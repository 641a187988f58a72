"""Rungs of several trainings: each is a lesson, the same project over other rows, another objective, another model.

    pre-training    "reading": the model reads on, the project's raw text; "after-reading": it is adapted, all weights
    preference      "aligning": from the best rung so far, right answers against its own wrong ones (`pairs`)

A lesson is a workshop, so it is planned, trained, resumed and spread over processes as any rung is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError, RecipeError
from genwright.catalogue.parts import ADAPTERS, METRICS, RUNGS
from genwright.data.files import load_rows
from genwright.data.formats import Row
from genwright.engine.recipe import Recipe
from genwright.improve.solution import Solution
from genwright.improve.workshop import FINISHED, Workshop, question, reference

LESSONS = "lessons"
"""Below a rung's folder: what its lessons leave to go on from."""
PAIRS = "pairs.jsonl"
"""In a rung's folder: the pairs that it learned from."""
TEXT = "text"
"""The rows of data.text, beside the splits."""
LEAST_HELD_OUT = 24
"""Characters of a row that are too many to stand in a text by chance."""
READS_WITH = {"decoder": "causal", "encoder": "masked", "encoder-decoder": "span-corruption"}
"""Family -> the objective that learns from raw text."""
ALIGNING_RATE = 0.1
"""Of the adapter's own learning rate: a margin can grow without end, and the answers are known already."""


def lesson_of(workshop: Workshop, rung: str, name: str) -> Workshop:
    """A lesson of a rung by name, from what stands on the disk; "" is the rung's only one: the project itself."""
    return _LESSONS[name](workshop, rung) if name else workshop


def recipes_of(workshop: Workshop, rung: str) -> dict[str, Recipe]:
    """The recipe of a finished rung under its name, and of a lesson before it under "rung: lesson"."""
    first = RUNGS[rung](workshop.spec, rung).first
    if first == "pairs":
        return {rung: aligning(workshop, rung).recipe(rung)}
    before = {f"{rung}: reading": reading(workshop, rung).recipe(rung)} if first == "reading" else {}
    return before | {rung: workshop.recipe(rung)}


# --- reading on -------------------------------------------------------------------------------------------------------


def reading(workshop: Workshop, rung: str) -> Workshop:
    """The model learns raw text, whole. Errors: DataError without text; RecipeError for a tokenizer that cannot hide spans."""
    texts = texts_of(workshop)
    return workshop.learning(_alike(texts), objective=READS_WITH[workshop.family])


def after_reading(workshop: Workshop, rung: str) -> Workshop:
    """The project's own rows and objective, on the model that has read."""
    return workshop.learning({}, model=workshop.made / rung / LESSONS / "reading" / "model")


def texts_of(workshop: Workshop) -> list[Row]:
    """data.text, else the texts of the training rows without their labels (Gururangan 2020, arXiv 2004.10964). Errors: DataError."""
    given = workshop.scope / f"{TEXT}.jsonl"
    found = load_rows(given) if given.exists() else [Row(kind="text", text=text) for text in _own_texts(workshop)]
    if not found:
        raise DataError(
            "There is no raw text to read on for the rung 'pre-training'.", wanted="data.text, or training rows that are texts",
            found=f"training rows of kind {', '.join(sorted({row.kind for row in workshop.rows('train')}))}",
            do='name a file of texts: data.text = "notes.jsonl", or take pre-training out of adapt.ladder',
        )  # fmt: skip
    return found


def without_held_out(texts: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """The texts in which no held-out row stands whole: its text, or its question and its answer. Case and spaces do not count."""
    plain = lambda text: " ".join(str(text).casefold().split())
    parts = [{plain(part) for part in (row.text or question(row), reference(row)) if part} for row in held_out]
    whole = [wanted for wanted in parts if sum(map(len, wanted)) >= LEAST_HELD_OUT]
    inside = lambda text: any(all(part in text for part in wanted) for wanted in whole)
    return [row for row in texts if not inside(plain(row.text))]


def _own_texts(workshop: Workshop) -> list[str]:
    texts = [row.text or " ".join(row.words) for row in workshop.rows("train")]
    return list(dict.fromkeys(text for text in texts if text))


def _alike(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows to learn from; nothing is held out of them, for the rung is judged on the project's validation rows."""
    return {"train": rows, "validation": rows[:1]}


# --- preference -------------------------------------------------------------------------------------------------------


def aligning(workshop: Workshop, rung: str, pairs: list[Row] | None = None) -> Workshop:
    """DPO over pairs, those on the disk where none are given, on the best that was reached so far."""
    folder = workshop.made / rung
    start = folder / LESSONS / "start"
    rows = pairs if pairs is not None else load_rows(folder / PAIRS)
    adapt = workshop.spec.adapt
    rate = adapt.learning_rate or ADAPTERS["lora"].default_learning_rate
    model = start if start.exists() else Path(best_so_far(workshop, rung).model)
    return workshop.learning(
        _alike(rows), objective="dpo", model=model, learning_rate=rate * ALIGNING_RATE, milestones=adapt.milestones
    )


def refuse_unwritten(workshop: Workshop) -> None:
    """Errors: RecipeError where a rung leaves no written answers that could be right or wrong."""
    if workshop.family != "decoder" or workshop.reads or workshop.head.kind != "language":
        raise RecipeError(
            "The rung 'preference' learns from the model's own wrong answers.", wanted="a decoder that writes its answers",
            found=f"a model of family {workshop.family}, judged by {workshop.metric}", do="take it out of adapt.ladder",
        )  # fmt: skip


def best_so_far(workshop: Workshop, rung: str) -> Solution:
    """The best of the rungs below whose weights were trained and can be one model; the project's model where there is none."""
    below = [name for name in workshop.ladder[: workshop.ladder.index(rung)] if _is_one_model(workshop, name)]
    scores = {name: _score(workshop.made / name / FINISHED) for name in below}
    known = {name: score for name, score in scores.items() if score is not None}
    if not known:
        return Solution(rung, str(workshop.model))
    sign = 1 if METRICS[workshop.metric].higher_is_better else -1
    return workshop.solution(max(known, key=lambda name: sign * known[name]))


def _is_one_model(workshop: Workshop, rung: str) -> bool:
    method = RUNGS[rung](workshop.spec, rung).method
    return bool(method) and (ADAPTERS[method].form == "model" or ADAPTERS[method].mergeable)


def _score(attempt: Path) -> float | None:
    told = json.loads(attempt.read_text()) if attempt.exists() else {}
    return float(told["score"]["value"]) if "score" in told else None


def assumed_pairs(workshop: Workshop, rung: str) -> list[Row]:
    """Pairs as planned: another row's answer is the wrong one; before any training it runs to the limit."""
    rows = answered_rows(workshop)
    answers = [reference(row) for row in rows]
    words = "a " * min(workshop.spec.adapt.max_new_tokens, workshop.max_tokens // 2)
    taught = any(_is_one_model(workshop, name) for name in workshop.ladder[: workshop.ladder.index(rung)])
    return [
        pair_of(row, answers[(number + 1) % len(rows)] if taught else words) for number, row in enumerate(rows)
    ]  # fmt: skip


def answered_rows(workshop: Workshop) -> Sequence[Row]:
    """The training rows whose answers are compared."""
    return workshop.rows("train")[: workshop.spec.adapt.pairs]


def pair_of(row: Row, wrong: str) -> Row:
    """A training row's answer, and a wrong one."""
    *asked, right = row.conversation
    return Row(
        kind="preference", messages=tuple(asked), chosen=(right,), rejected=({"role": "assistant", "content": wrong},),
        place=row.place,
    )  # fmt: skip


_LESSONS: dict[str, Callable[[Workshop, str], Any]] = {
    "reading": reading,
    "after-reading": after_reading,
    "aligning": aligning,
}
