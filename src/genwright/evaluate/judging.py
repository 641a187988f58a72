"""A judge model behind an address compares the answer with the row's reference, twice, each time in the other place.

A judge favours places (Zheng 2023, arXiv 2306.05685): a win counts only where it names the same answer both times; where it
changes its mind that is a draw, 50. A reply that says neither A, B nor a draw is *unjudged*: the row counts for nothing, and
how many there were stands beside the score.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from genwright.base.errors import BadRequest, GenwrightError
from genwright.evaluate.asking import WRITTEN, conversation_of
from genwright.evaluate.endpoint import Endpoint
from genwright.evaluate.forms import Form, Options, Row, Scored, Target

ASK = """Which of two answers to a request is better: more correct, more helpful, clearer?

Request: {request}

Answer A: {first}

Answer B: {second}

Reply with one line: [[A]], [[B]] or, where they are equally good, [[C]]."""

POINTS = {"A": 100.0, "B": 0.0, "C": 50.0}


def verdict_in(reply: str) -> str | None:
    """A, B or C, where the reply says exactly one of them."""
    found = set(re.findall(r"\[\[([ABC])\]\]", reply))
    return found.pop() if len(found) == 1 else None


def points(first: str | None, swapped: str | None) -> float | None:
    """100 for a win both times, 0 for a loss both times, 50 for anything else that was judged; None where it was not."""
    if first is None or swapped is None:
        return None
    there, back = POINTS[first], 100.0 - POINTS[swapped]
    return there if there == back else 50.0


def judge(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """How often the answer is preferred to the reference. Errors: BadRequest without a judge, GenwrightError where it judged nothing."""
    own = options.own
    if not own["judge"]:
        raise BadRequest("A suite of the form judge needs a judge.", do='judge = "http://HOST:PORT/v1"')
    asked = Endpoint(
        own["judge"], model=own["judge_model"], key=os.environ.get("GENWRIGHT_API_KEY", ""), seconds=own["seconds"]
    )
    answers = target.reply([conversation_of(row["prompt"]) for row in rows], options)
    requests = [str(conversation_of(row["prompt"])[-1]["content"]) for row in rows]
    texts = [(request, answer, row["reference"]) for request, answer, row in zip(requests, answers, rows)]
    forth = asked.replies([conversation_of(ASK.format(request=r, first=a, second=b)) for r, a, b in texts])
    back = asked.replies([conversation_of(ASK.format(request=r, first=b, second=a)) for r, a, b in texts])
    found = [points(verdict_in(one), verdict_in(other)) for one, other in zip(forth, back)]
    judged = [one for one in found if one is not None]
    if not judged:
        raise GenwrightError(
            f"The judge {asked.name} judged no row.",
            wanted="[[A]], [[B]] or [[C]]",
            found=(forth[0] or "no answer")[:80],
        )
    also = {"unjudged": 100 * (len(rows) - len(judged)) / len(rows), "draws": 100 * judged.count(50.0) / len(judged)}
    return Scored(
        [50.0 if one is None else one for one in found], answers, also, [float(one is not None) for one in found]
    )


JUDGE = Form(
    "judge", {"prompt": (str, list), "reference": str}, ("preferred",), judge,
    {**WRITTEN, "max_tokens": 256, "judge": "", "judge_model": "auto", "seconds": 60.0},
)  # fmt: skip
