"""A solution shows as many examples as leave room for an answer."""

from __future__ import annotations

import pytest
from tests.e2e.tiny import write_model

from genwright.data.formats import Row
from genwright.data.templates import encode_prompt
from genwright.improve.solution import Answering, Solution
from genwright.models.generate import Sampling, context_of


def row(asked: str, answer: str) -> Row:
    return Row("chat", messages=({"role": "user", "content": asked}, {"role": "assistant", "content": answer}))


ROWS = [
    row(f"the {word} house stands near the river number {number}", word)
    for number, word in enumerate(["red", "green", "blue", "white"])
]
ASKED = row("the blue house stands near the river number 2, which one?", "blue")


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Answering:
    folder = write_model(tmp_path_factory.mktemp("tiny"), "decoder")
    return Answering(Solution("few-shot", str(folder), examples=4), ROWS, precision="fp32")


@pytest.mark.parametrize("room", [1, 16, 48])
def test_the_farthest_examples_are_left_out_until_an_answer_has_room(answering: Answering, room: int) -> None:
    put = answering.with_examples(ASKED.conversation[:-1], room)
    assert len(encode_prompt(put, answering.tokenizer)) + room <= context_of(answering.model)
    nearest = answering.nearest.nearest(ASKED.conversation[-2]["content"], 4)
    shown = (len(put) - 1) // 2
    assert [one["content"] for one in put[:-1]] == [
        turn["content"] for one in nearest[4 - shown :] for turn in one.conversation
    ]
    more = answering.with_examples(ASKED.conversation[:-1], -10_000)
    assert len(more) == 9, "all four where room is no question"
    if room > 1:
        assert 0 < shown < 4, "some are shown, and not all fit"
    one_more = [*nearest[4 - shown - 1].conversation, *put] if shown < 4 else []
    assert shown == 4 or len(encode_prompt([dict(turn) for turn in one_more], answering.tokenizer)) + room > context_of(
        answering.model
    )


def test_rows_are_answered_with_what_fits_and_no_error(answering: Answering) -> None:
    assert len(answering.answer([ASKED], Sampling(max_new_tokens=40))) == 1
