"""Examples are the training rows nearest to the question, and stand before it in the conversation."""

from __future__ import annotations

import numpy as np

from genwright.data.formats import Row
from genwright.improve.examples import NearestExamples, few_shot_messages


def row(asked: str, answer: str, system: str = "") -> Row:
    before = ({"role": "system", "content": system},) if system else ()
    return Row("chat", messages=(*before, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}))


ROWS = [
    row("Create a storage account", "az storage account create"),
    row("Delete a virtual machine", "az vm delete"),
    row("List storage accounts", "az storage account list"),
    row("Show a network interface", "az network nic show"),
]


def answers(rows: list[Row]) -> list[str]:
    return [one.messages[-1]["content"] for one in rows]


def test_the_nearest_stands_last_next_to_the_question() -> None:
    nearest = NearestExamples(ROWS)
    assert answers(nearest.nearest("create storage accounts", 2)) == [
        "az storage account list",
        "az storage account create",
    ]
    assert answers(nearest.nearest("remove the virtual machine", 1)) == ["az vm delete"]


def test_a_row_is_nearest_to_itself_and_all_vectors_have_length_one() -> None:
    nearest = NearestExamples(ROWS)
    np.testing.assert_allclose(np.linalg.norm(nearest.vectors, axis=1), 1.0, rtol=1e-5)
    for one in ROWS:
        assert nearest.nearest(one.messages[-2]["content"], 1) == [one]


def test_ties_go_to_the_earlier_row_and_unknown_words_break_nothing() -> None:
    assert answers(NearestExamples(ROWS).nearest("zzz", 2)) == ["az vm delete", "az storage account create"]
    assert len(NearestExamples(ROWS).nearest("create", 10)) == 4


def test_one_system_turn_comes_first_then_the_examples_then_the_question() -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Stop a machine"}]
    messages = few_shot_messages(asked, [row("Start a machine", "az vm start", system="Be brief.")])
    assert [message["content"] for message in messages] == [
        "Be brief.",
        "Start a machine",
        "az vm start",
        "Stop a machine",
    ]
    assert few_shot_messages(asked, []) == asked
