"""What is told of the rows before they are learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import DataError
from genwright.data.formats import Row
from genwright.data.look import look, quantile
from genwright.data.templates import encode


def row(prompt: str, answer: str) -> Row:
    return Row("chat", messages=({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}))


ROWS = [row("hi", "hello"), row("the user", "asks " * 5), row("a", "b " * 40)]


def test_numbers_agree_with_the_rows(tokenizer: Any) -> None:
    encoded = [encode(one, tokenizer, max_tokens=999) for one in ROWS]
    lengths = [len(one.input_ids) for one in encoded]
    seen = look(ROWS, tokenizer, max_tokens=999, capacity=max(lengths), format="prompt/completion")
    assert (
        seen.rows == 3
        and seen.format == "prompt/completion"
        and look(ROWS, tokenizer, max_tokens=999, capacity=9).format == "chat"
    )
    assert seen.learned_share == sum(sum(one.learned) for one in encoded) / sum(lengths)
    assert seen.longest_tokens == max(lengths) and seen.lengths == {
        "p50": lengths[1],
        "p95": lengths[2],
        "max": lengths[2],
    }
    assert seen.packing_fill == sum(lengths) / (2 * max(lengths)), "the long row fills one pack, the others share one"
    assert (seen.truncated_rows, seen.truncated_tokens, seen.double_bos, seen.missing_eos, seen.warnings) == (
        0,
        0,
        0,
        0,
        [],
    )


def test_the_sample_is_the_row_as_the_model_reads_it(tokenizer: Any) -> None:
    seen = look(ROWS, tokenizer, max_tokens=999, capacity=100)
    assert seen.sample == [
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", False), ("hello<|im_end|>", True), ("\n", False)
    ]  # fmt: skip
    assert json.loads(json.dumps(seen.to_json()))["sample"][1] == ["hello<|im_end|>", True]


def test_truncation_is_said(tokenizer: Any) -> None:
    length = len(encode(ROWS[2], tokenizer, max_tokens=999).input_ids)
    seen = look(ROWS, tokenizer, max_tokens=length - 7, capacity=100)
    assert (seen.truncated_rows, seen.truncated_tokens, seen.longest_tokens) == (1, 7, length)
    assert seen.warnings[0].startswith(f"1 rows are longer than {length - 7} tokens and lose 7 tokens")
    assert seen.missing_eos == 0, "a truncated row is said once"


def test_a_missing_end_is_said(tokenizer_with: Callable[..., Any]) -> None:
    endless = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    tokenizer = tokenizer_with(endless + "{{ 'assistant: ' if add_generation_prompt else '' }}")
    seen = look(ROWS, tokenizer, max_tokens=999, capacity=100)
    assert seen.missing_eos == 3 and any("would not learn to stop" in warning for warning in seen.warnings)


def test_a_double_bos_is_said(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with("{{ bos_token }}" + tokenizer_with().chat_template, bos_token="<|bos|>")
    assert look(ROWS, tokenizer, max_tokens=999, capacity=100).double_bos == 0
    doubled = tokenizer_with("{{ bos_token + bos_token }}" + tokenizer_with().chat_template, bos_token="<|bos|>")
    seen = look(ROWS, doubled, max_tokens=999, capacity=100)
    assert seen.double_bos == 3 and any("two BOS" in warning for warning in seen.warnings)


def test_a_small_share_and_preferences_are_said(tokenizer: Any) -> None:
    seen = look([row("word " * 200, "b")], tokenizer, max_tokens=9999, capacity=100)
    assert seen.learned_share < 0.05 and "of the tokens are learned; the rest is prompt" in seen.warnings[0]
    chosen, rejected = ({"role": "assistant", "content": "yes"},), ({"role": "assistant", "content": "no"},)
    pair = Row("preference", messages=ROWS[0].messages[:1], chosen=chosen, rejected=rejected)
    assert (
        "Of preference rows the chosen answers are shown."
        in look([pair], tokenizer, max_tokens=99, capacity=99).warnings
    )


def test_no_rows(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no rows to look at"):
        look([], tokenizer, max_tokens=99, capacity=99)


def test_nothing_learned_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="prompt is longer than the context"):
        look(ROWS, tokenizer, max_tokens=5, capacity=99)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 1.0]))
def test_quantiles_by_definition(values: list[int], fraction: float) -> None:
    ordered = sorted(values)
    value = quantile(ordered, fraction)
    assert sum(one <= value for one in ordered) >= fraction * len(ordered)
    smaller = [one for one in ordered if one < value]
    assert not smaller or sum(one <= smaller[-1] for one in ordered) < fraction * len(ordered)
