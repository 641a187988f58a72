"""Rows into tokens, and which of those tokens are learned.

A conversation is rendered by the tokenizer's own chat template and tokenised once, whole. The learned spans are found
on the text: an answer begins where the rendering of the turns before it, with the generation prompt, ends; it runs up
to and including its end-of-turn token. So no template needs `{% generation %}`, every assistant turn is learned, and an
end-of-turn token is learned even where padding has the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from genwright.base.errors import DataError
from genwright.data.formats import Message, Row

FALLBACK = (
    "{{ begin }}{% for message in messages %}{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}"
    "{{ '\\n\\n' if not (loop.last and message['role'] == 'assistant') else '' }}"
    "{% endfor %}{{ '### assistant\\n' if add_generation_prompt else '' }}"
)
"""For a tokenizer without a chat template: "### user", the text, a blank line, "### assistant", the answer, EOS."""

ROWS_AT_ONCE = 1000
"""Rows handed to the tokenizer in one call: it works on them in parallel."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """A row as tokens."""

    input_ids: list[int]
    learned: list[bool]
    """For each token, whether it is predicted and counted. Never the first: nothing stands before it."""
    truncated: int
    """Tokens cut from the end."""
    row_key: str
    branches: tuple[int, ...] = ()
    """Lengths, where the row branches: a shared beginning, then each branch. Empty: one document."""
    labels: tuple[int, ...] = ()
    """Where classes are learned: the row's class, or each token's (-100: none)."""
    source_ids: list[int] = field(default_factory=list)
    """What an encoder-decoder's encoder reads; `input_ids` are then the target."""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """What is said of the row beside its tokens: "..._N" per label, "..._D" per sequence."""

    @property
    def num_tokens(self) -> int:
        """What the row takes of a microbatch."""
        return len(self.input_ids) + len(self.source_ids)


def encode(row: Row, tokenizer: Any, *, max_tokens: int) -> Encoded:
    """One row; see `encode_rows`."""
    return encode_rows([row], tokenizer, max_tokens=max_tokens)[0]


def encode_rows(rows: Sequence[Row], tokenizer: Any, *, max_tokens: int) -> list[Encoded]:
    """Rows as tokens, at most `max_tokens` each: the end is cut and counted.

    Of a text every token is learned but the first, and EOS is appended; of a label, its name as an answer; of a
    preference, the chosen answer. Errors: DataError when nothing learned is left of a row, a template does not render
    a conversation turn by turn, or the tokenizer cannot tell where its tokens lie in the text.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"The tokenizer {type(tokenizer).__name__} cannot tell where in a text its tokens lie.",
            wanted="a fast tokenizer (a tokenizer.json in the model's folder)",
            do="choose a model that has one",
        )
    return [
        one
        for start in range(0, len(rows), ROWS_AT_ONCE)
        for one in _encode_some(rows[start : start + ROWS_AT_ONCE], tokenizer, max_tokens)
    ]


def encode_prompt(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """A conversation up to the point where the model answers: the template's generation prompt stands at its end."""
    text = render(messages, tokenizer, generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def source_text(messages: Sequence[Message]) -> str:
    """What an encoder-decoder reads of a conversation: its turns, a line each, without roles."""
    return "\n".join(str(message["content"]) for message in messages)


def render(messages: Sequence[Message], tokenizer: Any, *, generation_prompt: bool = False, place: str = "") -> str:
    """A conversation as text, by the tokenizer's template or FALLBACK. Errors: DataError when it refuses it.

    Tools that stand on a message are given to the template, which decides how they are told.
    """
    own = {} if tokenizer.chat_template else {"chat_template": FALLBACK, "begin": _begin(tokenizer)}
    if own and not tokenizer.eos_token:
        raise DataError(
            "The tokenizer has neither a chat template nor an EOS token, so no answer could ever end.",
            do="choose another model",
        )
    tools = next((message["tools"] for message in messages if message.get("tools")), None)
    plain = [{name: value for name, value in message.items() if name != "tools"} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                plain, tools=tools, tokenize=False, add_generation_prompt=generation_prompt, **own
            )
        )
    except Exception as error:  # a template is a program of its author's: it may raise anything
        raise DataError(
            f"{_at(place)}The chat template of {_name(tokenizer)} does not take this conversation: {error}",
            found=f"the roles {', '.join(str(message['role']) for message in messages)}",
            do="change the row, or choose another model",
        ) from error


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a plain text with its BOS token."""
    return tokenizer.bos_token_id is not None and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]


def ending_tokens(tokenizer: Any) -> set[int]:
    """The ids that may end a turn or a text: special tokens."""
    added = {token for token, content in tokenizer.added_tokens_decoder.items() if content.special}
    return added | set(tokenizer.all_special_ids)


def _begin(tokenizer: Any) -> str:
    return str(tokenizer.bos_token) if adds_bos(tokenizer) else ""


def _encode_some(rows: Sequence[Row], tokenizer: Any, max_tokens: int) -> list[Encoded]:
    endings = [tokenizer.convert_ids_to_tokens(token) for token in sorted(ending_tokens(tokenizer))]
    begin = _begin(tokenizer)
    rendered = [
        _text_and_spans(row, begin, tokenizer) if row.kind == "text" else _chat_and_spans(row, endings, tokenizer)
        for row in rows
    ]
    texts = [text for text, _ in rendered]
    tokens = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        _cut(row, ids, _learned(offsets, spans), max_tokens)
        for row, ids, offsets, (_, spans) in zip(rows, tokens["input_ids"], tokens["offset_mapping"], rendered)
    ]


def _text_and_spans(row: Row, begin: str, tokenizer: Any) -> tuple[str, list[Span]]:
    end = tokenizer.eos_token or ""
    text = row.text if row.text.startswith(begin) else begin + row.text
    text = text if text.endswith(end) else text + end
    return text, [(0, len(text))]


def _chat_and_spans(row: Row, endings: list[str], tokenizer: Any) -> tuple[str, list[Span]]:
    messages = row.conversation
    full = render(messages, tokenizer, place=row.place)
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    first = turns[-1] if row.kind == "preference" else 0  # the prompt of a preference may hold older answers
    return full, [_answer_span(row, turn, full, endings, tokenizer) for turn in turns if turn >= first]


def _answer_span(row: Row, turn: int, full: str, endings: list[str], tokenizer: Any) -> Span:
    """Characters of one answer and of the special token that ends it. A template may add text after the last turn."""
    messages = row.conversation
    before = render(messages[:turn], tokenizer, generation_prompt=True, place=row.place)
    whole = full if turn + 1 == len(messages) else render(messages[: turn + 1], tokenizer, place=row.place)
    end = _shared(whole, full)
    start = len(before)
    said = _said(messages[turn])
    if not full.startswith(before) or end <= start or any(full.find(part, start, end) < 0 for part in said):
        raise DataError(
            f"{_at(row.place)}The chat template of {_name(tokenizer)} renders message {turn + 1} "
            "differently when others follow, or leaves part of it out: it would learn what it is never asked.",
            wanted=f"{full[:start][-60:]!r}, then {said[0][:60] if said else ''!r}",
            found=f"{full[: start + 60][-120:]!r}",
            do="choose a model whose template keeps turns as they are, or leave out what it changes",
        )
    answered = max((full.find(part, start, end) + len(part) for part in said), default=start)
    # Around a tool call there may be special tokens before the one that ends the turn.
    calls = bool(messages[turn].get("tool_calls"))
    stops = [(full.find(token, answered, end), len(token)) for token in endings]
    found = [place + length for place, length in stops if place >= 0]
    return start, (max if calls else min)(found, default=end)


def _said(message: Message) -> list[str]:
    """The parts of an answer that must stand in its rendering: its words and the names of the tools it calls."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    return [part for part in (str(message["content"]).strip(), *(str(call.get("name", "")) for call in calls)) if part]


def _shared(one: str, other: str) -> int:
    """Length of the common beginning of two texts."""
    if other.startswith(one):
        return len(one)
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _learned(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """A token is learned if it reaches into a span and does not reach beyond it; the first token never is."""
    learned = [any(start < end and first < end <= last for first, last in spans) for start, end in offsets]
    return [False, *learned[1:]] if learned else []


def _cut(row: Row, ids: list[int], learned: list[bool], max_tokens: int) -> Encoded:
    if not any(learned[:max_tokens]):
        prompt = learned.index(True) if any(learned) else len(ids)
        raise DataError(
            f"{_at(row.place)}The prompt is longer than the context, so nothing of the answer is left to learn."
            if any(learned)
            else f"{_at(row.place)}The row has no learned tokens.",
            wanted=f"a prompt of fewer than {max_tokens} tokens" if any(learned) else "a text of at least two tokens",
            found=f"{prompt} tokens before the first learned one",
            do="shorten or remove the row, or raise adapt.max_tokens",
        )
    return Encoded(list(ids[:max_tokens]), learned[:max_tokens], max(0, len(ids) - max_tokens), row.key)


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
