"""Application profiles: measured ones are what the trace says, own ones say that they are."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from genwright.base.errors import UnknownName
from genwright.catalogue.profiles import profile, profiles

TRACES = {"chatbot": "conv", "prompt-heavy": "code"}


def nearest_rank(values: list[int], percent: int) -> int:
    """The smallest value with at least `percent` of the values at or below it."""
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


@pytest.mark.parametrize("name", TRACES)
def test_measured_profiles_are_percentiles_of_their_trace(name: str, shared: Path) -> None:
    one = profile(name)
    path = shared / "azure_llm_traces" / f"AzureLLMInferenceTrace_{TRACES[name]}.csv"
    assert path.name in one.source
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == one.requests
    for column, percentiles, typical in (
        ("ContextTokens", one.input_percentiles, one.input_tokens),
        ("GeneratedTokens", one.output_percentiles, one.output_tokens),
    ):
        values = [int(row[column]) for row in rows]
        assert percentiles == {f"p{percent}": nearest_rank(values, percent) for percent in (25, 50, 75, 90, 95, 99)}
        assert typical == percentiles["p50"]


@pytest.mark.parametrize("name", profiles())
def test_the_shape_is_that_of_the_lengths(name: str) -> None:
    one = profile(name)
    assert one.shape == ("prompt-heavy" if one.input_tokens > one.output_tokens else "generation-heavy")


@pytest.mark.parametrize("name", profiles())
def test_a_profile_says_what_it_rests_on(name: str) -> None:
    one = profile(name)
    measured = one.basis == "measured"
    assert measured == bool(one.requests) == bool(one.input_percentiles) == bool(one.output_percentiles)
    assert measured or (one.basis, one.source) == ("definition", "genwright's own definition")
    assert one.date and one.description and one.title


def test_the_four_application_profiles_are_there() -> None:
    assert {"content-creation", "prompt-engineering", "summarization", "chatbot"} <= set(profiles())


def test_every_profile_is_documented(documented: set[str]) -> None:
    assert set(profiles()) <= documented


def test_an_unknown_profile_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"There is no profile 'chat-bot'\.[\s\S]*did you mean 'chatbot'"):
        profile("chat-bot")
