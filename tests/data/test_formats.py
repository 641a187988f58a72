"""The formats people have, and what each refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import DataError
from genwright.data.formats import FORMATS, Row, formats_of, from_json, row_of, to_json

ASK, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
OTHER = {"role": "assistant", "content": "b"}

SAME = [
    ("messages", {"messages": [ASK, ANSWER]}),
    ("prompt/completion", {"prompt": "q", "completion": "a"}),
    ("prompt/completion", {"prompt": [ASK], "completion": [ANSWER]}),
    ("instruction/output", {"instruction": "q", "input": "", "output": "a"}),
    ("conversations", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {**ANSWER, "name": None}]},
    ),
]


@pytest.mark.parametrize(("format", "value"), SAME)
def test_one_conversation_in_every_format_is_one_row(format: str, value: dict[str, Any]) -> None:
    assert formats_of(value) == (format,)
    row = row_of(value, format, "f:1")
    assert row == Row("chat", messages=(ASK, ANSWER), place="f:1")
    assert row.conversation == (ASK, ANSWER)
    with_system = row_of({**value, "system": "s", "group": 7}, format, "f:1")
    assert with_system.messages == (SYSTEM, ASK, ANSWER) and with_system.group == "7"


def test_an_input_follows_its_instruction() -> None:
    row = row_of({"instruction": "Translate", "input": "Hallo", "output": "Hello"}, "instruction/output", "f:1")
    assert row.messages[0]["content"] == "Translate\n\nHallo"


def test_texts_labels_and_preferences() -> None:
    assert row_of({"text": "t"}, "text", "") == Row("text", text="t")
    assert row_of({"text": "t", "label": 0}, "text/label", "") == Row("labelled", text="t", label="0")
    pair = Row("preference", messages=(ASK,), chosen=(ANSWER,), rejected=(OTHER,))
    assert row_of({"prompt": "q", "chosen": "a", "rejected": "b"}, "chosen/rejected", "") == pair
    assert row_of({"chosen": [ASK, ANSWER], "rejected": [ASK, OTHER]}, "chosen/rejected", "") == pair
    assert formats_of({"text": "", "label": ""}) == ("text/label",)


def test_tools_are_kept() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    row = row_of(
        {"messages": [ASK, call, {"role": "tool", "content": "1", "tool_call_id": "x"}, ANSWER]}, "messages", "f:1"
    )
    assert row.messages[1] == {**call, "content": ""} and row.messages[2]["tool_call_id"] == "x"


REFUSED = [
    ("prompt/completion", {"prompt": "q", "completion": ""}, "f:3: 'completion' is empty"),
    ("prompt/completion", {"prompt": "  ", "completion": "a"}, "f:3: 'prompt' is empty"),
    ("prompt/completion", {"prompt": "q", "completion": None}, "f:3: the row has no 'completion'"),
    ("prompt/completion", {"prompt": "q"}, "f:3: the row has no 'completion'"),
    ("prompt/completion", {"prompt": 7, "completion": "a"}, "f:3: 'prompt' is not a text.*\n.*\n.*int: 7"),
    ("prompt/completion", {"prompt": "\ud800", "completion": "a"}, "f:3: 'prompt' holds half a character"),
    ("messages", {"messages": "q"}, "f:3: 'messages' is not a list of messages"),
    ("messages", {"messages": ["q"]}, r"f:3: messages\[0\] is not a message"),
    (
        "messages",
        {"messages": [ASK, {"role": "robot", "content": "a"}]},
        r"f:3: messages\[1\] has the unknown role 'robot'",
    ),
    ("messages", {"messages": [ASK, {"role": "assistant", "content": ""}]}, r"f:3: 'messages\[1\].content' is empty"),
    ("messages", {"messages": [ASK, ANSWER, ASK]}, "f:3: the row has no answer.*\n.*\n.*user, assistant, user"),
    ("conversations", {"conversations": "q"}, "f:3: 'conversations' is not a list of turns"),
    ("conversations", {"conversations": [{"from": "bing", "value": "a"}]}, "unknown role 'bing'"),
    ("conversations", {"conversations": [{"from": "human", "value": "a"}]}, "f:3: the row has no answer"),
    ("text/label", {"text": "t", "label": 1.5}, "f:3: 'label' is not a label"),
    ("chosen/rejected", {"chosen": "a", "rejected": "b"}, "f:3: the row has no prompt"),
    ("chosen/rejected", {"prompt": "q", "chosen": "a", "rejected": "a"}, "f:3: chosen and rejected are the same"),
]


@pytest.mark.parametrize(("format", "value", "words"), REFUSED)
def test_what_is_refused_and_why(format: str, value: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        row_of(value, format, "f:3")


def test_ambiguous_keys_fit_two_formats() -> None:
    assert formats_of({"text": "", "messages": []}) == ("messages", "text")
    assert formats_of({"question": ""}) == ()
    assert set(formats_of(dict.fromkeys(key for keys in FORMATS.values() for key in keys))) == set(FORMATS) - {"text"}


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
ROWS = st.one_of(
    st.builds(Row, st.just("text"), text=TEXTS, group=TEXTS, place=TEXTS),
    st.builds(
        lambda q, a: Row("chat", messages=({**ASK, "content": q}, {**ANSWER, "content": a}), place="f:1"), TEXTS, TEXTS
    ),
)


@given(ROWS)
def test_rows_survive_json(row: Row) -> None:
    back = from_json(json.loads(json.dumps(to_json(row))))
    assert back == row and back.key == row.key


def test_the_key_is_the_content() -> None:
    row = Row("text", text="t", place="f:1", group="g")
    assert row.key == Row("text", text="t", place="other:9").key
    assert len({row.key, Row("text", text="u").key, Row("labelled", text="t").key}) == 3
