"""The row formats people have, and the one Row they all become.

    messages            {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}
    prompt/completion   {"prompt": ..., "completion": ...}           either may also be a list of messages
    instruction/output  {"instruction": ..., "input": ..., "output": ...}     input may be absent or empty
    conversations       {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}    (ShareGPT)
    text                {"text": ...}
    text/label          {"text": ..., "label": ...}
    tokens/tags         {"tokens": ["Rome", "is", "old"], "tags": ["B-LOC", "O", "O"]}
    chosen/rejected     {"prompt": ..., "chosen": ..., "rejected": ...}       texts or lists of messages

messages and prompt/completion may have `tools` (JSON schemas of the functions that may be called, as a list or as JSON
text): they travel on the first message, from where the chat template is given them.
Any format may have `system` (a text put before the conversation), `group` (rows of a group stay in one split) and
`forget` (true: unlearning is to forget the row).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from genwright.base.errors import DataError
from genwright.base.files import sha256_of_json

Message = dict[str, Any]
Messages = tuple[Message, ...]

ROLES = ("system", "developer", "user", "assistant", "tool")

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}

FORMATS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt/completion": ("prompt", "completion"),
    "instruction/output": ("instruction", "output"),
    "conversations": ("conversations",),
    "text": ("text",),
    "text/label": ("text", "label"),
    "tokens/tags": ("tokens", "tags"),
    "chosen/rejected": ("chosen", "rejected"),
}
"""Format name -> the keys by which it is recognised."""

OPTIONAL = ("system", "input", "prompt", "group", "forget", "tools")
"""Keys that formats read where they stand."""


@dataclass(frozen=True)
class Row:
    """One example. Which fields are filled depends on `kind`."""

    kind: str
    """A "chat" has messages, "text" text, "labelled" text and label, "tagged" words and tags, "preference" messages, chosen
    and rejected."""
    messages: Messages = ()
    text: str = ""
    label: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    chosen: Messages = ()
    rejected: Messages = ()
    forget: bool = False
    """Whether unlearning is to forget it; other rows are kept."""
    group: str = ""
    """Rows of one group are near-duplicates of each other: they stay in one split and are one unit of statistics."""
    place: str = ""
    """"file:line" of the row, for errors."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of what is learned from the row: its place and group do not count."""
        return sha256_of_json({name: value for name, value in to_json(self).items() if name not in ("group", "place")})

    @property
    def conversation(self) -> Messages:
        """The row as a conversation that ends with its answer; of a preference, the chosen answer."""
        if self.kind == "tagged":
            return (
                {"role": "user", "content": " ".join(self.words)},
                {"role": "assistant", "content": " ".join(self.tags)},
            )
        if self.kind == "labelled":
            return ({"role": "user", "content": self.text}, {"role": "assistant", "content": self.label})
        return self.messages + self.chosen


def to_json(row: Row) -> dict[str, Any]:
    """A row as plain JSON; empty fields are left out."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}


def from_json(value: Mapping[str, Any]) -> Row:
    """What `to_json` gave."""
    given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
    return Row(**given)


def formats_of(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Every format that a row with these keys could be in. text/label beats text, which it contains."""
    fits = [name for name, needed in FORMATS.items() if all(key in keys for key in needed)]
    if "text/label" in fits:
        fits.remove("text")
    return tuple(fits)


def row_of(value: Mapping[str, Any], format: str, place: str) -> Row:
    """One row from a file's values. Errors: DataError with the place: a missing key, a wrong type, an empty answer."""
    for key in FORMATS[format]:
        if value.get(key) is None:
            raise DataError(
                f"{place}: the row has no '{key}'.",
                wanted=f"{' and '.join(FORMATS[format])}, as the format {format} has",
                found=_keys(value),
                do="complete the row or remove it; if the column has another name, say so with data.columns",
            )
    row = _READERS[format](value, place)
    group = value.get("group")
    forget = value.get("forget", False)
    if not isinstance(forget, bool):
        raise DataError(f"{place}: 'forget' is not true or false.", wanted="true or false", found=_short(forget))
    return replace(row, group="" if group is None else str(group), place=place, forget=forget)


def _keys(value: Mapping[str, Any]) -> str:
    return f"the keys {', '.join(map(str, value)) or '(none)'}"


def _text(value: Any, key: str, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(
            f"{place}: '{key}' is not a text.", wanted="a text", found=f"{type(value).__name__}: {_short(value)}"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise DataError(f"{place}: '{key}' holds half a character (a lone surrogate).", do="repair or remove the row")
    if not value.strip():
        raise DataError(f"{place}: '{key}' is empty.", wanted="a text", do="complete the row or remove it")
    return value


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:77]}..."


def _messages(value: Any, key: str, place: str) -> Messages:
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(
            f"{place}: '{key}' is not a list of messages.",
            wanted='[{"role": "user", "content": "..."}, ...]',
            found=_short(value),
        )
    return tuple(_message(one, f"{key}[{number}]", place) for number, one in enumerate(value))


def _message(value: Any, key: str, place: str) -> Message:
    if not isinstance(value, dict) or "role" not in value:
        raise DataError(
            f"{place}: {key} is not a message.", wanted='{"role": "user", "content": "..."}', found=_short(value)
        )
    role = _role(value["role"], ROLES, key, place)
    content = _joined(value.get("content"))
    calls = {"tool_calls": value["tool_calls"]} if value.get("tool_calls") else {}
    if not calls or content not in (None, ""):
        content = _text(content, f"{key}.content", place)
    rest = {
        name: one for name, one in value.items() if name not in ("role", "content", "tool_calls") and one is not None
    }
    return {"role": role, "content": content or "", **calls, **rest}


def _joined(content: Any) -> Any:
    """Content in parts, where every part is a text, as one text; anything else as it is."""
    if (
        isinstance(content, list)
        and content
        and all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    ):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _role(role: Any, known: tuple[str, ...], key: str, place: str) -> str:
    if role not in known:
        raise DataError(f"{place}: {key} has the unknown role {role!r}.", wanted=f"one of {', '.join(known)}")
    return str(role)


def _turn(value: Any, role: str, key: str, place: str) -> Messages:
    """A text said by `role`, or messages as they are."""
    return (
        ({"role": role, "content": _text(value, key, place)},)
        if not isinstance(value, (list, tuple))
        else _messages(value, key, place)
    )


def _system(value: Mapping[str, Any], place: str) -> Messages:
    return ({"role": "system", "content": _text(value["system"], "system", place)},) if value.get("system") else ()


def _ends_with_answer(messages: Messages, place: str) -> Messages:
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(
            f"{place}: the row has no answer: its last message is not the assistant's.",
            wanted="a last message with the role assistant",
            found=f"the roles {', '.join(message['role'] for message in messages)}",
            do="complete the row or remove it",
        )
    return messages


def _with_tools(value: Mapping[str, Any], messages: Messages, place: str) -> Messages:
    """The schemas of the tools on the first message, where the row has any."""
    tools = value.get("tools")
    if not tools:
        return messages
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise DataError(f"{place}: 'tools' is not JSON: {error}.", found=_short(tools), do="correct it") from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(
            f"{place}: 'tools' is not a list of schemas.", wanted='[{"type": "function", ...}]', found=_short(tools)
        )
    return ({**messages[0], "tools": tools}, *messages[1:])


def _of_messages(value: Mapping[str, Any], place: str) -> Row:
    messages = _ends_with_answer(_system(value, place) + _messages(value["messages"], "messages", place), place)
    return Row("chat", messages=_with_tools(value, messages, place))


def _of_prompt(value: Mapping[str, Any], place: str) -> Row:
    asked = _turn(value["prompt"], "user", "prompt", place)
    answered = _turn(value["completion"], "assistant", "completion", place)
    messages = _ends_with_answer(_system(value, place) + asked + answered, place)
    return Row("chat", messages=_with_tools(value, messages, place))


def _of_instruction(value: Mapping[str, Any], place: str) -> Row:
    asked = _text(value["instruction"], "instruction", place)
    if value.get("input"):
        asked = f"{asked}\n\n{_text(value['input'], 'input', place)}"
    answer = _text(value["output"], "output", place)
    return Row(
        "chat",
        messages=(*_system(value, place), {"role": "user", "content": asked}, {"role": "assistant", "content": answer}),
    )


def _of_conversations(value: Mapping[str, Any], place: str) -> Row:
    turns = value["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "from" in turn for turn in turns):
        raise DataError(
            f"{place}: 'conversations' is not a list of turns.",
            wanted='[{"from": "human", "value": "..."}, ...]',
            found=_short(turns),
        )
    messages = tuple(
        {
            "role": SHAREGPT_ROLES[_role(turn["from"], tuple(SHAREGPT_ROLES), f"conversations[{number}]", place)],
            "content": _text(turn.get("value"), f"conversations[{number}].value", place),
        }
        for number, turn in enumerate(turns)
    )
    return Row("chat", messages=_ends_with_answer(_system(value, place) + messages, place))


def _of_text(value: Mapping[str, Any], place: str) -> Row:
    return Row("text", text=_text(value["text"], "text", place))


def _of_label(value: Mapping[str, Any], place: str) -> Row:
    label = value["label"]
    if not isinstance(label, (str, int)):
        raise DataError(f"{place}: 'label' is not a label.", wanted="a text or a whole number", found=_short(label))
    return Row("labelled", text=_text(value["text"], "text", place), label=_text(str(label), "label", place))


def _of_tags(value: Mapping[str, Any], place: str) -> Row:
    for key in ("tokens", "tags"):
        if not isinstance(value[key], list) or not all(isinstance(word, str) for word in value[key]):
            raise DataError(
                f"{place}: '{key}' is not a list of texts.", wanted='["Rome", "is", "old"]', found=_short(value[key])
            )
    if len(value["tokens"]) != len(value["tags"]) or not value["tokens"]:
        raise DataError(
            f"{place}: there is not one tag for each token.", wanted=f"{len(value['tokens'])} tags", found=f"{len(value['tags'])}",
            do="complete the row or remove it",
        )  # fmt: skip
    return Row("tagged", words=tuple(value["tokens"]), tags=tuple(value["tags"]))


def _of_preference(value: Mapping[str, Any], place: str) -> Row:
    prompt = _turn(value["prompt"], "user", "prompt", place) if value.get("prompt") else ()
    chosen, rejected = (_turn(value[key], "assistant", key, place) for key in ("chosen", "rejected"))
    if not prompt:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if not prompt:
        raise DataError(
            f"{place}: the row has no prompt.",
            wanted="a prompt, or two conversations that begin with the same messages",
        )
    for answer in (chosen, rejected):
        _ends_with_answer(answer, place)
    if chosen == rejected:
        raise DataError(
            f"{place}: chosen and rejected are the same.", wanted="two different answers", do="remove the row"
        )
    return Row("preference", messages=_system(value, place) + prompt, chosen=chosen, rejected=rejected)


_READERS: dict[str, Callable[[Mapping[str, Any], str], Row]] = {
    "messages": _of_messages,
    "prompt/completion": _of_prompt,
    "instruction/output": _of_instruction,
    "conversations": _of_conversations,
    "text": _of_text,
    "text/label": _of_label,
    "tokens/tags": _of_tags,
    "chosen/rejected": _of_preference,
}
