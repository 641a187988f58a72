"""What kind of application is calling, and what its request will cost, said before it runs and scored afterwards.

A request is of the profile whose marks its words have; without any, of the one whose lengths are nearest to what this key sends.
Whether it is prompt-heavy is judged by time: prompt tokens * seconds each, against expected tokens * seconds each, both measured
on this key's own requests; until there are some, by the profile's definition.

Expected tokens: the profile's median, drawn towards what this key's requests of the profile really wrote (a mean of logarithms that
the prior weighs `PRIOR` requests in), with the prompt's length where that explains something. Expected joules: tokens read and
written, each times its joules in this key's records, by least squares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from genwright.catalogue import profiles as catalogue
from genwright.serve.contracts import Profile, Request, text_of

CHARACTERS_PER_TOKEN = 4.0
PRIOR = 4.0
LOOKED_AT = 4_000
"""Characters at each end of the newest turn and of the system's words that are searched for marks."""
SLOPE_FROM = 12
"""Requests from which on the prompt's length is asked what it explains."""
Record = Mapping[str, Any]


class HistoryProfiler:
    """See contracts.Profiler. It keeps nothing: everything it knows is in the history it is given."""

    def classify(self, request: Request, history: Sequence[Record]) -> Profile:
        """Below a millisecond for a few dozen records."""
        prompt = prompt_tokens(request)
        done = [one for one in history if one.get("outcome", "done") == "done" and one.get("generated_tokens")]
        known = catalogue.profile(recognised(request, prompt, done))
        tokens = expected_tokens(known, prompt, done)
        stated = request.params.get("max_completion_tokens", request.params.get("max_tokens"))
        tokens = min(tokens, float(stated)) if isinstance(stated, int) else tokens
        return Profile(
            known.name, phase(known, prompt, tokens, done), tokens, expected_joules(prompt, tokens, done),
            known.most_output_tokens, known.ttft_seconds, known.tpot_seconds,
        )  # fmt: skip


def prompt_tokens(request: Request) -> float:
    """About how many tokens are read."""
    return max(1.0, sum(len(text_of(one)) for one in request.messages) / CHARACTERS_PER_TOKEN)


def recognised(request: Request, prompt: float, history: Sequence[Record]) -> str:
    """The profile's name: by marks, then by being a conversation, then by lengths."""
    text = "\n".join(_ends(text_of(one)) for one in (*request.messages[:1], *request.messages[-1:])).lower()
    hits = {name: sum(bool(mark.search(text)) for mark in marks) for name, marks in _marks().items()}
    best = max(hits, key=lambda name: hits[name])
    if any(one.get("role") == "assistant" for one in request.messages) and hits[best] < 2:
        return "chatbot"
    if hits[best]:
        return best
    written = [math.log(one["generated_tokens"]) for one in history]
    return nearest(prompt, math.exp(float(np.median(written))) if written else None)


def nearest(prompt: float, written: float | None) -> str:
    """The profile of nearest median lengths, by their logarithms; `written` None: by the prompt alone."""

    def distance(one: catalogue.Profile) -> float:
        apart = abs(math.log(max(prompt, 1) / one.input_tokens))
        return apart if written is None else math.hypot(apart, math.log(max(written, 1) / one.output_tokens))

    return min(catalogue.profiles().values(), key=distance).name


def expected_tokens(known: catalogue.Profile, prompt: float, history: Sequence[Record]) -> float:
    """Generated tokens: the median of what is believed."""
    alike = [one for one in history if one.get("profile", known.name) in ("", known.name)]
    written = np.array([math.log(one["generated_tokens"]) for one in alike])
    mean = (PRIOR * math.log(known.output_tokens) + written.sum()) / (PRIOR + len(written))
    if len(written) >= SLOPE_FROM:
        read = np.array([math.log(max(1, one.get("prompt_tokens") or 1)) for one in alike])
        apart = read - read.mean()
        slope = float(apart @ (written - written.mean())) / (float(apart @ apart) + PRIOR)
        mean += slope * float(np.clip(math.log(prompt) - read.mean(), -2, 2))
    return round(math.exp(mean), 2)


def expected_joules(prompt: float, tokens: float, history: Sequence[Record]) -> float | None:
    """None until the meter has told some."""
    metered = [one for one in history if one.get("joules")]
    if len(metered) < 2:
        return None
    work = np.array(
        [[one["prompt_tokens"] - one.get("cached_tokens", 0), one["generated_tokens"]] for one in metered], float
    )
    joules = np.array([one["joules"] for one in metered], float)
    each = _two_rates(work, joules)
    return round(float(np.array([prompt, tokens]) @ each), 4)


def phase(
    known: catalogue.Profile, prompt: float, tokens: float, history: Sequence[Record]
) -> Literal["", "prompt-heavy", "generation-heavy"]:
    """By the seconds each side takes on this engine."""
    timed = [one for one in history if one.get("ttft_seconds") and one.get("tpot_seconds")]
    if not timed:
        return "prompt-heavy" if known.shape == "prompt-heavy" else "generation-heavy"
    read = float(
        np.median([one["ttft_seconds"] / max(1, one["prompt_tokens"] - one.get("cached_tokens", 0)) for one in timed])
    )
    write = float(np.median([one["tpot_seconds"] for one in timed]))
    return "prompt-heavy" if prompt * read > tokens * write else "generation-heavy"


def scored(records: Sequence[Record]) -> dict[str, float]:
    """How predictions came true: the median factor by which they were off, their bias as a factor, the share within a factor of 2."""
    told: dict[str, float] = {}
    for name, expected, real in (
        ("tokens", "expected_tokens", "generated_tokens"),
        ("joules", "expected_joules", "joules"),
    ):
        off = np.array([
            math.log(one[expected] / one[real]) for one in records
            if one.get(expected) and one.get(real) and one.get("outcome", "done") == "done"
        ])  # fmt: skip
        if len(off):
            told |= {
                f"{name}_requests": float(len(off)), f"{name}_median_factor": math.exp(float(np.median(np.abs(off)))),
                f"{name}_bias_factor": math.exp(float(np.mean(off))), f"{name}_within_2": float(np.mean(np.abs(off) <= math.log(2))),
            }  # fmt: skip
    return told


def _two_rates(work_B2: Any, joules_B: Any) -> Any:
    """Joules of a token read and of one written, neither negative: least squares, and again without a side that came out below 0."""
    for kept in ((0, 1), (1,), (0,)):
        side = work_B2[:, kept]
        rates = np.linalg.solve(side.T @ side + 1e-6 * np.eye(len(kept)), side.T @ joules_B)
        if (rates >= 0).all():
            break
    each = np.zeros(2)
    each[list(kept)] = np.maximum(rates, 0)
    return each


def _ends(text: str) -> str:
    return text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"


@cache
def _marks() -> dict[str, list[re.Pattern[str]]]:
    return {
        name: [re.compile(mark, re.MULTILINE) for mark in one.marks or ()] for name, one in catalogue.profiles().items()
    }
