"""Splits: stable, of the asked size, and without leaks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genwright.base.errors import DataError
from genwright.data.formats import Row
from genwright.data.splits import SPLITS, check_leakage, split


def row(prompt: str, answer: str = "a", group: str = "", place: str = "f:1") -> Row:
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Row("chat", messages=messages, group=group, place=place)


def where(parts: dict[str, list[Row]]) -> dict[str, str]:
    return {one.key: name for name in SPLITS for one in parts[name]}


MANY = [row(f"question {number}", group=f"g{number % 60}") for number in range(600)]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 599), min_size=350), st.integers(0, 5), st.sampled_from(["", "group"]))
def test_a_row_never_moves_when_others_come_or_go(kept: set[int], seed: int, group_by: str) -> None:
    asked = {"validation": 0.2, "test": 0.2, "seed": seed, "group_by": group_by}
    whole = where(split({"train": MANY}, **asked))
    part = where(split({"train": [MANY[number] for number in sorted(kept, reverse=True)]}, **asked))
    assert part == {key: name for key, name in whole.items() if key in part} and len(part) == len(kept)


def test_groups_stay_together() -> None:
    parts = split({"train": MANY}, validation=0.2, test=0.2, seed=0, group_by="group")
    groups = [{one.group for one in parts[name]} for name in SPLITS]
    assert sum(map(len, groups)) == 60 and all(groups)
    assert check_leakage(parts) == []


def test_shares_are_what_was_asked_for() -> None:
    """3,000 rows: four standard deviations of the binomial."""
    rows = [row(str(number)) for number in range(3000)]
    parts = split({"train": rows}, validation=0.1, test=0.2, seed=3, group_by="")
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert abs(len(parts[name]) - 3000 * share) < 4 * math.sqrt(3000 * share * (1 - share))
    assert where(parts) != where(split({"train": rows}, validation=0.1, test=0.2, seed=4, group_by=""))


def test_command_path_groups_commands() -> None:
    rows = [row(f"q{number}", f"az vm  cmd{number % 40} --name {number} -g x") for number in range(400)]
    parts = split({"train": rows}, validation=0.2, test=0.2, seed=0, group_by="command-path")
    assert {one.group for name in SPLITS for one in parts[name]} == {f"az vm cmd{number}" for number in range(40)}
    assert check_leakage(parts) == []


def test_files_that_are_given_are_taken_as_they_are() -> None:
    validation = [row("v")]
    parts = split({"train": MANY, "validation": validation}, validation=0.5, test=0.2, seed=0, group_by="")
    assert [one.key for one in parts["validation"]] == [validation[0].key]
    assert len(parts["train"]) + len(parts["test"]) == 600 and 60 < len(parts["test"]) < 180
    only = split({"train": MANY}, validation=0.0, test=0.0, seed=0, group_by="")
    assert [len(only[name]) for name in SPLITS] == [600, 0, 0]


def test_a_row_in_two_splits_is_counted() -> None:
    parts = {"train": [row("a"), row("b")], "test": [row("b", place="t:9"), row("c")]}
    with pytest.raises(
        DataError,
        match=r"1 rows stand in both train and test.*\n.*of 2 rows in train and 2 in test; for example f:1 and t:9",
    ):
        check_leakage(parts)


def test_a_group_in_two_splits_is_counted() -> None:
    parts = {"train": [row("a", group="x")], "validation": [row("b", group="x"), row("c", group="y")]}
    with pytest.raises(DataError, match="1 groups stand in both train and validation"):
        check_leakage(parts)


def test_a_prompt_in_two_splits_is_a_warning() -> None:
    assert check_leakage({"train": [row("a", "1")], "test": [row("a", "2")]}) == [
        "1 prompts stand in both train and test, with other answers: "
        "whoever remembers the one may gain or lose by the other."
    ]
    texts = {"train": [Row("text", text="a")], "test": [Row("text", text="b")]}
    assert check_leakage(texts) == []


REFUSED = [
    ({"group_by": "repo"}, r'data.group = "repo" is not a grouping.*\n.*\n.*data.columns = \{ group = "repo" \}'),
    ({"group_by": "group"}, r"f:1: the row has no group"),
    ({"validation": 0.6, "test": 0.5}, r"leave nothing to train on"),
    ({"test": -0.1}, r"leave nothing to train on"),
    ({"validation": 1e-9}, r"The split 'validation' has no rows.*\n.*train: \d+ rows"),
]


@pytest.mark.parametrize(("changed", "words"), REFUSED)
def test_what_is_refused_and_why(changed: dict[str, object], words: str) -> None:
    rows = [row(str(number)) for number in range(100)]
    with pytest.raises(DataError, match=words):
        split({"train": rows}, **{"validation": 0.1, "test": 0.1, "seed": 0, "group_by": "", **changed})  # type: ignore[arg-type]


def test_texts_have_no_command_path() -> None:
    with pytest.raises(DataError, match="f:2: a text has no answer"):
        split({"train": [Row("text", text="t", place="f:2")]}, validation=0, test=0, seed=0, group_by="command-path")
