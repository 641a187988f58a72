"""A client's body, checked before anything runs: known keys have their types, sizes have limits, text has no NUL.

Keys that we do not know are the engine's business and pass through: it says itself what it does not take.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from genwright.serve.contracts import Kind, Message, text_of
from genwright.serve.replies import Refusal

MOST_BYTES = 10_000_000
"""Of a body."""

CHARACTERS_PER_TOKEN = 32
"""A prompt with more characters than this a token of context cannot fit; a shorter one is for the engine to count."""

MOST_MESSAGES = 2_000
MOST_TOKENS = 10_000_000
DEEPEST = 64

NUMBER = (int, float)
TYPES: dict[str, tuple[tuple[type, ...], float | None, float | None]] = {
    "max_tokens": ((int,), 0, MOST_TOKENS), "max_completion_tokens": ((int,), 0, MOST_TOKENS), "temperature": (NUMBER, 0, 2),
    "top_p": (NUMBER, 0, 1), "n": ((int,), 1, 1), "stream": ((bool,), None, None), "seed": ((int,), -(2**63), 2**63 - 1),
    "presence_penalty": (NUMBER, -2, 2), "frequency_penalty": (NUMBER, -2, 2), "stop": ((str, list), None, None),
    "user": ((str,), None, None), "tools": ((list,), None, None), "tool_choice": ((str, dict), None, None),
    "response_format": ((dict,), None, None), "logprobs": ((bool, int), 0, 20), "top_logprobs": ((int,), 0, 20),
    "logit_bias": ((dict,), None, None), "stream_options": ((dict,), None, None), "echo": ((bool,), None, None),
    "best_of": ((int,), 1, 1), "suffix": ((str,), None, None), "metadata": ((dict,), None, None),
}  # fmt: skip
"""Key -> (types, least, most). null is as if the key were left out."""

ENGINE_ONLY = (
    "lora", "id_slot", "cache_prompt", "grammar", "json_schema", "samplers", "timings_per_token", "return_progress",
    "n_predict", "n_keep", "n_indent", "t_max_predict_ms", "lora_request", "kv_transfer_params", "request_id", "priority",
)  # fmt: skip
"""Keys of engines that reach past one request, or past our counting: they are refused, not passed on."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Asked:
    """A body that was found good."""

    model: str
    messages: tuple[Message, ...]
    params: dict[str, Any]


def read_json(data: bytes) -> dict[str, Any]:
    """Errors: Refusal 400 for what is no JSON object in UTF-8."""
    try:
        told = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise Refusal(400, f"The body is nested deeper than {DEEPEST} levels.") from None
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from None
    if not isinstance(told, dict):
        raise Refusal(400, f"The body must be a JSON object, and is {_kind(told)}.")
    return told


def check(kind: Kind, told: dict[str, Any], context: int) -> Asked:
    """Errors: Refusal 400 naming the key."""
    _no_harm(told)
    model = told.get("model", "auto")
    if not isinstance(model, str) or not model or len(model) > 256:
        raise Refusal(400, 'model must be a name, such as "auto".', param="model")
    params = {name: value for name, value in told.items() if name not in ("model", "messages") and value is not None}
    for name in params:
        if name in ENGINE_ONLY:
            raise Refusal(400, f"{name} is not taken here.", param=name, code="unsupported_parameter")
    for name, (types, least, most) in TYPES.items():
        if name in params:
            _check_value(name, params[name], types, least, most)
    _check_shapes(params)
    messages = {"chat": _messages, "completion": _prompt, "embedding": _input}[kind](told)
    length = sum(len(text_of(message)) for message in messages)
    if kind != "embedding" and length > CHARACTERS_PER_TOKEN * context:
        raise Refusal(
            400, f"The prompt has {length} characters; this model takes {context} tokens.", param="messages",
            code="context_length_exceeded",
        )  # fmt: skip
    return Asked(model, messages, params)


def _messages(told: dict[str, Any]) -> tuple[Message, ...]:
    messages = told.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages must be a list of at least one message.", param="messages")
    if len(messages) > MOST_MESSAGES:
        raise Refusal(400, f"messages has {len(messages)} turns; at most {MOST_MESSAGES} are taken.", param="messages")
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise Refusal(400, f"{place} must be an object, and is {_kind(message)}.", param=place)
        if message.get("role") not in ROLES:
            raise Refusal(400, f"{place}.role must be one of {', '.join(ROLES)}.", param=f"{place}.role")
        _check_content(place, message)
    return tuple(messages)


def _check_content(place: str, message: Message) -> None:
    content, param = message.get("content"), f"{place}.content"
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
        raise Refusal(400, f"{place}.tool_calls must be a list of calls with a function's name.", param=place)
    if content is None:
        if message["role"] == "assistant" and (calls or message.get("function_call")):
            return
        raise Refusal(400, f"{param} is missing.", param=param)
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise Refusal(400, f"{param} must be text or a list of parts, and is {_kind(content)}.", param=param)
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, f'{param} may have parts of the type "text" only.', param=param)


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _prompt(told: dict[str, Any]) -> tuple[Message, ...]:
    prompt = told.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = told["prompt"] = prompt[0]
    if not isinstance(prompt, str):
        raise Refusal(400, f"prompt must be one text, and is {_kind(prompt)}.", param="prompt")
    return ({"role": "user", "content": prompt},)


def _input(told: dict[str, Any]) -> tuple[Message, ...]:
    texts = told.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if (
        not isinstance(texts, list)
        or not texts
        or len(texts) > MOST_MESSAGES
        or not all(isinstance(text, str) for text in texts)
    ):
        raise Refusal(400, "input must be a text or a list of texts.", param="input")
    if not all(texts):
        raise Refusal(400, "input has an empty text.", param="input")
    return tuple({"role": "user", "content": text} for text in texts)


def _check_value(name: str, value: Any, types: tuple[type, ...], least: float | None, most: float | None) -> None:
    is_flag = isinstance(value, bool)
    if not isinstance(value, types) or (is_flag and bool not in types):
        raise Refusal(400, f"{name} must be {' or '.join(map(_name, types))}, and is {_kind(value)}.", param=name)
    number: float = 0 if is_flag or not isinstance(value, NUMBER) else value
    if least is not None and most is not None and not is_flag and not least <= number <= most:
        raise Refusal(400, f"{name} must be from {least:g} to {most:g}, and is {number:g}.", param=name)


def _check_shapes(params: dict[str, Any]) -> None:
    """What lists and tables hold."""
    stop = params.get("stop")
    if isinstance(stop, list) and (len(stop) > 16 or not all(isinstance(one, str) and one for one in stop)):
        raise Refusal(400, "stop must be at most 16 texts that are not empty.", param="stop")
    for tool in params.get("tools", []):
        if not isinstance(tool, dict) or tool.get("type") != "function" or not _is_call(tool):
            raise Refusal(400, 'each of tools must be {"type": "function", "function": {"name": ...}}.', param="tools")
    form = params.get("response_format")
    if form is not None and form.get("type") not in ("text", "json_object", "json_schema"):
        raise Refusal(400, "response_format.type must be text, json_object or json_schema.", param="response_format")
    if form and form["type"] == "json_schema" and not isinstance((form.get("json_schema") or {}), dict):
        raise Refusal(400, "response_format.json_schema must be an object.", param="response_format")
    if isinstance(params.get("tool_choice"), str) and params["tool_choice"] not in ("none", "auto", "required"):
        raise Refusal(400, "tool_choice must be none, auto, required or a function.", param="tool_choice")
    for token, bias in params.get("logit_bias", {}).items():
        if not token.lstrip("-").isdecimal() or isinstance(bias, bool) or not isinstance(bias, NUMBER):
            raise Refusal(400, "logit_bias must be token numbers with a number each.", param="logit_bias")


def _no_harm(told: dict[str, Any]) -> None:
    """No NUL and no half of a surrogate pair in any text, and no depth that could exhaust a reader's stack."""
    left: list[tuple[Any, int]] = [(told, 0)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            raise Refusal(400, f"The body is nested deeper than {DEEPEST} levels.")
        if isinstance(value, str):
            _no_harmful_text(value)
        elif isinstance(value, dict):
            left += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]


def _no_harmful_text(value: str) -> None:
    if "\0" in value:
        raise Refusal(400, "A text has a NUL character.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Refusal(400, "A text has half of a surrogate pair.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _kind(value: Any) -> str:
    return "missing" if value is None else _name(type(value))


def _name(kind: type) -> str:
    names = {
        str: "text",
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return names.get(kind, kind.__name__)
