"""What a meter must get right, as functions of (client, model): they run against any OpenAI-compatible URL.

GENWRIGHT_CONFORMANCE_URL=http://127.0.0.1:8000 pytest tests/serve/test_meter.py -k conforms
"""

from __future__ import annotations

import json
from typing import Any

import httpx

TEXT = "the red house number 3 stands near the green river"


def ask(client: httpx.Client, model: str, text: str = TEXT, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8, **more}
    answer = client.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    return answer


def usage_of_stream(text: str) -> dict[str, Any]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [one["usage"] for one in events if one.get("usage")][-1]


def a_stream_is_metered_as_the_whole_answer(client: httpx.Client, model: str) -> None:
    whole = ask(client, model).json()["usage"]
    streamed = usage_of_stream(ask(client, model, stream=True, stream_options={"include_usage": True}).text)
    assert [whole[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [
        streamed[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    ]
    assert 0 < whole["completion_tokens"] <= 8


def prompt_and_answer_add_up(client: httpx.Client, model: str) -> None:
    usage = ask(client, model).json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def a_longer_prompt_has_more_tokens_and_the_limit_holds(client: httpx.Client, model: str) -> None:
    short, long = (ask(client, model, text, max_tokens=3).json()["usage"] for text in ("a", f"a {TEXT}"))
    assert long["prompt_tokens"] > short["prompt_tokens"] and long["completion_tokens"] <= 3


def a_cached_prefix_is_counted_within_the_prompt(client: httpx.Client, model: str) -> None:
    fresh = "the white house number 31 stands near the blue river"
    first, second = (ask(client, model, fresh).json()["usage"] for _ in range(2))
    cached = (second.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    assert first["prompt_tokens"] == second["prompt_tokens"] and 0 < cached <= second["prompt_tokens"]


def an_answer_to_a_tools_prompt_counts_the_tools_turns(client: httpx.Client, model: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "house"}'}}
    said = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    body = {
        "model": model,
        "messages": [*said, {"role": "tool", "tool_call_id": "c1", "content": TEXT}],
        "max_tokens": 3,
    }
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert answer["usage"]["prompt_tokens"] > ask(client, model, "look").json()["usage"]["prompt_tokens"]


def a_stream_that_was_left_is_counted_apart(client: httpx.Client, model: str) -> None:
    """The next request's usage is its own: nothing of the one before, which its client left."""
    alone = ask(client, model, max_tokens=3).json()["usage"]
    body = {"model": model, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 40, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: {"))
    after = ask(client, model, max_tokens=3).json()["usage"]
    assert [after[name] for name in ("prompt_tokens", "total_tokens")] == [
        alone[name] for name in ("prompt_tokens", "total_tokens")
    ]


def a_request_sent_again_is_counted_again(client: httpx.Client, model: str) -> None:
    first, again = (ask(client, model, seed=1).json() for _ in range(2))
    assert first["usage"]["completion_tokens"] == again["usage"]["completion_tokens"] and first["id"] != again["id"]


def a_call_of_a_tool_is_counted_as_what_it_says(client: httpx.Client, model: str) -> None:
    """Whole and streamed: as many tokens both times; a model whose template knows no tools answers in words."""
    place = {"type": "object", "properties": {"at": {"type": "string", "enum": ["house"]}}, "required": ["at"]}
    tool = {"type": "function", "function": {"name": "look", "parameters": place}}
    forced = {"tools": [tool], "tool_choice": "required", "max_tokens": 256}
    whole = ask(client, model, "look", **forced).json()
    calls = whole["choices"][0]["message"].get("tool_calls") or []
    assert {call["function"]["name"] for call in calls} <= {"look"}
    streamed = usage_of_stream(
        ask(client, model, "look", stream=True, stream_options={"include_usage": True}, **forced).text
    )
    assert 0 < whole["usage"]["completion_tokens"] == streamed["completion_tokens"]


CHECKS = (
    a_stream_that_was_left_is_counted_apart, a_request_sent_again_is_counted_again, a_call_of_a_tool_is_counted_as_what_it_says,
    a_stream_is_metered_as_the_whole_answer, prompt_and_answer_add_up, a_longer_prompt_has_more_tokens_and_the_limit_holds,
    a_cached_prefix_is_counted_within_the_prompt, an_answer_to_a_tools_prompt_counts_the_tools_turns,
)  # fmt: skip
