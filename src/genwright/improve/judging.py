"""How a solution is judged: it answers rows, the project's metric scores each answer, and intervals say how sure that is."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError
from genwright.catalogue.parts import METRICS
from genwright.data.formats import Row
from genwright.evaluate.statistics import bootstrap
from genwright.improve.solution import Answering
from genwright.improve.workshop import Workshop, question, reference
from genwright.plan.here.memory import memory_is_an_error
from genwright.plan.here.verify import measuring

ALWAYS_SHOWN = ("exact-match", "chrf")
"""Shown beside the project's metric: whether an answer is right to the letter, and how near it is."""


@dataclass(frozen=True)
class Judgement:
    """Answers to some rows, with their scores by the project's metric and its interval by every metric that applies."""

    answers: list[str]
    scores: list[float]
    intervals: dict[str, dict[str, float]]
    seconds: float
    peak_bytes: int

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """One JSON line a row: prompt, reference, prediction, score."""
        lines = [
            {"prompt": question(row), "reference": reference(row), "prediction": answer, "score": score}
            for row, answer, score in zip(rows, self.answers, self.scores)
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def groups_of(rows: Sequence[Row]) -> list[str]:
    """What statistics may treat as independent: a row's group, or the row itself."""
    return [row.group or row.key for row in rows]


def judge(workshop: Workshop, rung: str, rows: Sequence[Row], *, split: str) -> Judgement:
    """Let a finished rung answer these rows, and score the answers. Errors: DataError without rows; OutOfBudget."""
    if not rows:
        raise DataError(
            f"There are no {split} rows to judge on.", do=f"raise data.{split}_fraction, or give data.{split}"
        )

    polled: list[float] = []

    def tell(done: int, total: int) -> None:
        polled.append(time.time())
        workshop.within_budget(polled[-1] - polled[-2] if len(polled) > 1 and done < total else 0.0)
        workshop.events.write(
            "progress", stage=split, what=f"{rung} answers {split} rows", done=done, total=total, unit="rows"
        )

    with measuring() as measured, memory_is_an_error("evaluate", rung):
        answers, scores = _answered(workshop, rung, rows, tell)
    intervals = _intervals(workshop, rows, answers, scores)
    told = intervals[workshop.metric]
    workshop.events.write("score", stage=split, rung=rung, split=split, metric=workshop.metric, **told)
    return Judgement(answers, scores, intervals, measured.seconds, measured.peak_bytes)


def _answered(workshop: Workshop, rung: str, rows: Sequence[Row], tell: Any) -> tuple[list[str], list[float]]:
    """(answers, scores); a metric of surprise has no answers."""
    metric, solution = METRICS[workshop.metric], workshop.solution(rung)
    setting = workshop.setting if workshop.reads or solution.head.kind != "language" else None
    answering = Answering(solution, workshop.rows("train"), precision=workshop.spec.adapt.precision, setting=setting)
    if workshop.reads:
        return [""] * len(rows), answering.read(workshop.metric, rows, tell)
    answers = answering.answer(rows, workshop.sampling, tell)
    return answers, metric.per_row(answers, [reference(row) for row in rows])


def _intervals(
    workshop: Workshop, rows: Sequence[Row], answers: list[str], scores: list[float]
) -> dict[str, dict[str, float]]:
    references, groups = [reference(row) for row in rows], groups_of(rows)
    beside = () if workshop.reads else tuple(name for name in ALWAYS_SHOWN if name != workshop.metric)
    told = {name: METRICS[name].per_row(answers, references) for name in beside}
    return {name: _interval(of, groups) for name, of in {workshop.metric: scores, **told}.items()}


def _interval(scores: list[float], groups: list[str]) -> dict[str, float]:
    interval = bootstrap(scores, groups=groups)
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "spread": statistics.pstdev(scores),
    }
