"""The catalogue's order: packaged first, then what needs no consent and answers, the largest that fits the memory."""

from __future__ import annotations

from genwright.catalogue.models import models
from genwright.models.choose import BYTES_PER_PARAMETER, ranked


def test_what_needs_no_hub_comes_first_and_nothing_larger_than_the_memory() -> None:
    names = ranked(["decoder"], 16 * 2**30)
    assert names[0] == "smollm2-135m-instruct"
    assert all(models()[name].parameters * BYTES_PER_PARAMETER < 16 * 2**30 for name in names)
    assert {models()[name].family for name in names} == {"decoder"}
    assert ranked(["decoder"], 1.0) == []


def test_open_instruct_models_come_before_gated_ones() -> None:
    cards = [models()[name] for name in ranked(["decoder"], 1e15)][1:]
    gated = [bool(card.gated) for card in cards]
    assert gated == sorted(gated)
    free = [card.stage == "instruct" for card in cards if not card.gated]
    assert free == sorted(free, reverse=True)
