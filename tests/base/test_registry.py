"""Names: resolved on first use, and the nearest one for a name nobody knows."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import UnknownName
from genwright.base.registry import MOST_NAMED, Registry, nearest, resolve, unknown_name

NAMES = ["zero-shot", "few-shot", "lora", "full", "last-layers"]
SHELF = Registry("shelf", {"ordered": "collections:OrderedDict", "ghost": "no.such.module:Thing"})


def test_a_name_costs_nothing_until_it_is_wanted() -> None:
    assert list(SHELF) == ["ordered", "ghost"]
    assert len(SHELF) == 2
    assert "ghost" in SHELF
    assert SHELF.path("ghost") == "no.such.module:Thing"
    assert SHELF["ordered"] is collections.OrderedDict is resolve("collections:OrderedDict")
    with pytest.raises(ModuleNotFoundError):
        SHELF["ghost"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match="There is no shelf 'orderd'") as caught:
        SHELF["orderd"]
    assert caught.value.do == "did you mean 'ordered'?"
    assert caught.value.wanted == "one of ghost, ordered"


def test_of_many_names_the_nearest_are_listed_each_once() -> None:
    many = [f"device-{number}" for number in range(200)]
    told = unknown_name("device", "device-7x", [*many, *many]).wanted
    assert told.count("device-7,") == 1 and told.endswith(f"and {200 - MOST_NAMED} more")


def test_a_name_like_nothing_gets_no_advice() -> None:
    with pytest.raises(UnknownName) as caught:
        SHELF["xyz"]
    assert caught.value.do == ""


@given(st.sampled_from(NAMES), st.data())
def test_one_wrong_letter_still_finds_the_name(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz-"))
    assert nearest(name[:place] + letter + name[place + 1 :], NAMES) == name


@given(st.text(max_size=20))
def test_the_nearest_is_a_known_name_or_nothing(text: str) -> None:
    assert nearest(text, NAMES) in {*NAMES, ""}
