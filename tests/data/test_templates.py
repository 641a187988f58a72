"""Tokens and what is learned of them, read back as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genwright.base.errors import DataError
from genwright.data.formats import Row, row_of
from genwright.data.templates import Encoded, adds_bos, encode, encode_prompt, encode_rows

TURN = "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
DEFAULT_SYSTEM = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}" + TURN + "{% endfor %}" + ASK
)
"""As SmolLM2's."""
WITH_TAIL = (
    "{% for message in messages %}" + TURN + "{% endfor %}" + ASK + "{{ '' if add_generation_prompt else '<|end|>' }}"
)
FORGETS_THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ message['content'] if loop.last else message['content'].split('</think>')[-1] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}" + ASK
)
CALLS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<|call|>' + call.function.name + '<|end|>' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}" + ASK
)


def say(*words: str, **more: Any) -> Row:
    """A conversation in which user and assistant take turns."""
    messages = tuple({"role": ("user", "assistant")[turn % 2], "content": word} for turn, word in enumerate(words))
    return Row("chat", messages=messages, **more)


def learned(row: Encoded, tokenizer: Any) -> list[str]:
    """The runs of learned tokens, decoded."""
    runs: list[list[int]] = []
    for at, (token, counts) in enumerate(zip(row.input_ids, row.learned)):
        if counts and (at == 0 or not row.learned[at - 1]):
            runs.append([])
        if counts:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


def test_every_answer_and_its_end_is_learned(tokenizer: Any) -> None:
    """End-of-turn is also the padding token here, and is learned all the same."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = encode(say("hi", "hello you", "and?", "so it is"), tokenizer, max_tokens=200)
    assert learned(row, tokenizer) == ["hello you<|im_end|>", "so it is<|im_end|>"]
    assert tokenizer.decode(row.input_ids) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello you<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\nso it is<|im_end|>\n"
    )


@pytest.mark.parametrize("template", [DEFAULT_SYSTEM, WITH_TAIL], ids=["adds a system message", "adds text at the end"])
def test_templates_that_add_text(template: str, tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with(template)
    row = encode(say("hi", "hello", "<b", "< <|", "x", "y"), tokenizer, max_tokens=300)
    assert learned(row, tokenizer) == ["hello<|im_end|>", "< <|<|im_end|>", "y<|im_end|>"]


def test_the_prompt_is_what_stands_before_the_answer(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with(DEFAULT_SYSTEM)
    row = say("hi", "hello", "more", "yes")
    whole, prompt = encode(row, tokenizer, max_tokens=300), encode_prompt(list(row.messages[:-1]), tokenizer)
    assert whole.input_ids[: len(prompt)] == prompt
    assert whole.learned[len(prompt)] and not whole.learned[len(prompt) - 1]


def test_tool_calls_are_learned_to_the_end_of_the_turn(tokenizer_with: Callable[..., Any]) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    row = Row(
        "chat",
        messages=(
            {"role": "user", "content": "rain?"},
            call,
            {"role": "tool", "content": "no"},
            {"role": "assistant", "content": "No."},
        ),
    )
    tokenizer = tokenizer_with(CALLS)
    assert learned(encode(row, tokenizer, max_tokens=300), tokenizer) == [
        "<|call|>weather<|end|><|im_end|>",
        "No.<|im_end|>",
    ]


def test_a_template_that_drops_tool_calls_is_refused(tokenizer: Any) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    row = Row("chat", messages=({"role": "user", "content": "rain?"}, call), place="f:7")
    with pytest.raises(
        DataError, match=r"f:7: The chat template .* renders message 2 differently .* or leaves part of it out"
    ):
        encode(row, tokenizer, max_tokens=300)


def test_a_template_that_changes_earlier_turns_is_refused(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with(FORGETS_THINKING)
    assert learned(encode(say("a", "<think>b</think>c"), tokenizer, max_tokens=300), tokenizer) == [
        "<think>b</think>c<|im_end|>"
    ]
    with pytest.raises(DataError, match="renders message 2 differently when others follow"):
        encode(say("a", "<think>b</think>c", "d", "e"), tokenizer, max_tokens=300)


def test_a_template_that_asks_in_other_words_is_refused(tokenizer_with: Callable[..., Any]) -> None:
    """The model would learn to answer after "assistant" and be asked after "Assistant"."""
    tokenizer = tokenizer_with(
        "{% for message in messages %}" + TURN + "{% endfor %}" + ASK.replace("assistant", "Assistant")
    )
    with pytest.raises(DataError, match="it would learn what it is never asked"):
        encode(say("a", "b"), tokenizer, max_tokens=300)


def test_a_template_that_refuses_a_row_is_named(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with("{{ raise_exception('no such role') }}")
    with pytest.raises(
        DataError,
        match=r"f:3: The chat template of .* does not take this conversation: no such role\n.*user, assistant",
    ):
        encode(say("a", "b", place="f:3"), tokenizer, max_tokens=300)


def test_without_a_template_the_fallback(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with(None)
    row = encode(say("hi", "hello", "and", "so"), tokenizer, max_tokens=300)
    assert (
        tokenizer.decode(row.input_ids)
        == "### user\nhi\n\n### assistant\nhello<|im_end|>\n\n### user\nand\n\n### assistant\nso<|im_end|>"
    )
    assert learned(row, tokenizer) == ["hello<|im_end|>", "so<|im_end|>"]
    assert (
        tokenizer.decode(encode_prompt([{"role": "user", "content": "hi"}], tokenizer))
        == "### user\nhi\n\n### assistant\n"
    )


def test_neither_template_nor_end(tokenizer_with: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="neither a chat template nor an EOS token"):
        encode(say("a", "b"), tokenizer_with(None, eos_token=None), max_tokens=300)


def test_a_real_tokenizer_without_template(stories: Any) -> None:
    """Its normaliser moves spaces about, and it begins texts with BOS: one, not two."""
    row = encode(say("Once upon", "a time, he said"), stories, max_tokens=300)
    assert learned(row, stories) == ["a time, he said</s>"]
    assert row.input_ids.count(stories.bos_token_id) == 1 and row.input_ids[0] == stories.bos_token_id
    assert adds_bos(stories)


def test_a_text_is_learned_from_its_second_token_to_its_end(tokenizer: Any, stories: Any) -> None:
    row = encode(Row("text", text="the user asks"), tokenizer, max_tokens=99)
    assert row.learned == [False] + [True] * (len(row.input_ids) - 1)
    assert row.input_ids[-1] == tokenizer.eos_token_id
    again = encode(Row("text", text="the user asks<|im_end|>"), tokenizer, max_tokens=99)
    assert again.input_ids == row.input_ids, "one EOS, not two"
    story = encode(Row("text", text="Once upon a time"), stories, max_tokens=99)
    assert story.input_ids == [*stories("Once upon a time")["input_ids"], stories.eos_token_id]
    assert story.learned == [False] + [True] * (len(story.input_ids) - 1)


def test_labels_and_preferences_are_read_as_answers(tokenizer: Any) -> None:
    label = encode(Row("labelled", text="good film", label="positive"), tokenizer, max_tokens=99)
    assert learned(label, tokenizer) == ["positive<|im_end|>"]
    chosen, rejected = ({"role": "assistant", "content": "yes"},), ({"role": "assistant", "content": "no"},)
    row = Row("preference", messages=say("a", "old", "b").messages, chosen=chosen, rejected=rejected)
    assert learned(encode(row, tokenizer, max_tokens=99), tokenizer) == ["yes<|im_end|>"]


def test_truncation_cuts_the_end_and_is_counted(tokenizer: Any) -> None:
    row = say("hi", "a long answer it is")
    whole = encode(row, tokenizer, max_tokens=999)
    cut = encode(row, tokenizer, max_tokens=len(whole.input_ids) - 4)
    assert cut.input_ids == whole.input_ids[:-4] and cut.learned == whole.learned[:-4]
    assert (whole.truncated, cut.truncated, cut.row_key) == (0, 4, row.key)


def test_a_prompt_longer_than_the_context(tokenizer: Any) -> None:
    prompt = len(encode_prompt([{"role": "user", "content": "hi"}], tokenizer))
    row = say("hi", "yes", place="data.jsonl:9")
    assert sum(encode(row, tokenizer, max_tokens=prompt + 1).learned) == 1
    with pytest.raises(
        DataError,
        match=rf"data.jsonl:9: The prompt is longer.*\n.*fewer than {prompt} tokens\n.*{prompt} tokens",
    ):
        encode(row, tokenizer, max_tokens=prompt)


def test_a_text_of_one_token_has_nothing_to_learn(tokenizer_with: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="has no learned tokens"):
        encode(Row("text", text="a"), tokenizer_with(eos_token=None), max_tokens=99)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="Slow cannot tell where in a text its tokens lie"):
        encode(say("a", "b"), Slow(), max_tokens=99)


LETTERS = st.characters(codec="utf-8", exclude_characters="<")
WORDS = st.text(LETTERS, min_size=1, max_size=12).filter(lambda word: word.strip())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(words=st.lists(WORDS, min_size=2, max_size=6).filter(lambda words: len(words) % 2 == 0))
def test_any_words_come_back(words: list[str], tokenizer: Any) -> None:
    row = encode(say(*words), tokenizer, max_tokens=10_000)
    assert learned(row, tokenizer) == [f"{word}<|im_end|>" for word in words[1::2]]


def test_many_rows_are_each_as_alone(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genwright.data.templates.ROWS_AT_ONCE", 3)
    rows = [say(f"q {number}", "a " * (number + 1)) for number in range(8)]
    assert encode_rows(rows, tokenizer, max_tokens=99) == [encode(row, tokenizer, max_tokens=99) for row in rows]


def test_tools_reach_the_template_and_are_not_learned(tokenizer) -> None:
    tokenizer.chat_template = (
        "{% if tools %}tools:{% for tool in tools %}{{ tool.name }};{% endfor %}{% endif %}"
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    value = {
        "messages": [{"role": "user", "content": "add"}, {"role": "assistant", "content": "yes"}],
        "tools": [{"name": "adder"}],
    }
    row = row_of(value, "messages", "a:1")
    one = encode(row, tokenizer, max_tokens=100)
    text = tokenizer.decode(one.input_ids)
    learned = tokenizer.decode([token for token, yes in zip(one.input_ids, one.learned) if yes])
    assert text.startswith("tools:adder;") and "adder" not in learned and "yes" in learned
    as_text = row_of({**value, "tools": '[{"name": "adder"}]'}, "messages", "a:1")
    assert as_text.messages == row.messages
    with pytest.raises(DataError, match="'tools' is not a list of schemas"):
        row_of({**value, "tools": {"name": "adder"}}, "messages", "a:1")
