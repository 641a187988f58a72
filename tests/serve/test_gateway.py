"""The HTTP surface, with an engine that answers at once: shapes, streams, names, keys, guard, failures, hostile input."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import httpx
import pytest

from genwright.serve.contracts import Decision, Expert, Profile, Route
from genwright.serve.keys import Keys
from genwright.serve.server import HEAD_BYTES

EXPERT = Expert("law", Path("law"), "v1")


class Library:
    def experts(self):
        return (EXPERT,)

    def get(self, name):
        return EXPERT if name == "law" else None


class Router:
    def __init__(self):
        self.held = []

    def route(self, request, held):
        self.held.append(held)
        return Route("law", 0.9, 0.4, "fits") if "court" in request.last_user else Route(held, 0.1, 0.0, "held")


class Guard:
    window = 8

    def check_input(self, request, state):
        state["turns"] = state.get("turns", 0) + 1
        if "bomb" in request.last_user:
            return Decision("block", "harmful", 0.99, "I will not help with that.")
        if "secret" in request.last_user:
            return Decision("redact", "personal-data", 0.9, request.last_user.replace("secret", "[removed]"))
        return Decision("warn", "turns", 0.5, "long") if state["turns"] > 2 else Decision()

    def check_output(self, window, state):
        if "poison" in window:
            return Decision("block", "harmful", 1.0, "The answer was stopped.")
        return Decision("redact", "personal-data", 1.0, "XXX ") if "name" in window else Decision()


def events(text: str) -> list[dict]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def said(text: str) -> str:
    return "".join(
        (one["choices"][0].get("delta") or {}).get("content") or "" for one in events(text) if one.get("choices")
    )


def test_a_whole_answer_says_who_and_what_it_took(server) -> None:
    answer = server.chat("one two three")
    told = answer.json()
    assert answer.status_code == 200 and told["choices"][0]["message"]["content"] == "one two three"
    assert told["model"] == "echo" and told["usage"]["prompt_tokens"] == 3
    assert told["genwright"]["generated_tokens"] == 3 and told["genwright"]["joules"] > 0
    assert answer.headers["x-genwright-expert"] == "base" and answer.headers["x-genwright-reason"] == "only-one"


def test_a_stream_is_the_whole_answer_in_pieces(server) -> None:
    text = server.chat("one two three", stream=True, stream_options={"include_usage": True}).text
    assert said(text).split() == ["one", "two", "three"] and text.endswith("data: [DONE]\n\n")
    assert events(text)[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert "usage" not in events(server.chat("one", stream=True).text)[-1]


def test_the_router_chooses_and_a_conversation_holds(serve_with, echo) -> None:
    router = Router()
    with serve_with(echo, library=Library(), router=router) as server:
        first = server.chat("who sits in a court")
        assert first.headers["x-genwright-expert"] == "law" and first.json()["model"] == "law"
        assert first.json()["genwright"] | {"reason": "fits", "score": 0.9, "margin": 0.4} == first.json()["genwright"]
        messages = [
            {"role": "user", "content": "who sits in a court"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "and why"},
        ]
        server.http.post("/v1/chat/completions", json={"messages": messages})
        assert router.held == [None, "law"] and echo.asked[-1][1] is EXPERT
        assert server.chat("a court", model="base").headers["x-genwright-expert"] == "base"
        assert [one["id"] for one in server.http.get("/v1/models").json()["data"]] == ["auto", "echo", "law"]
        assert server.http.get("/v1/models/law").json()["version"] == "v1"
        missing = server.chat("x", model="nobody")
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_keys_limit_who_asks_how_often_and_whom(serve_with, echo, tmp_path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.make("ann", requests_per_minute=2, experts=())
    with serve_with(echo, keys=keys, library=Library(), router=Router()) as server:
        assert server.chat("hi").status_code == 401
        server.http.headers["Authorization"] = "Bearer gw-wrong"
        assert server.chat("hi").json()["error"]["code"] == "invalid_api_key"
        server.http.headers["Authorization"] = f"Bearer {secret}"
        assert server.chat("a court").headers["x-genwright-reason"] == "not-allowed"
        assert server.chat("x", model="law").status_code == 403
        assert server.chat("hi").status_code == 200
        late = server.chat("hi")
        assert (
            late.status_code == 429 and int(late.headers["retry-after"]) > 1 and "2 requests in a minute" in late.text
        )
        assert {row["key"] for row in server.records()} == {"ann"}
        keys.remove("ann")
        assert server.chat("hi").status_code == 200  # no key is left: the door is open


def test_the_guard_blocks_redacts_and_remembers(serve_with, echo) -> None:
    with serve_with(echo, guard=Guard()) as server:
        blocked = server.chat("a bomb")
        assert blocked.json()["choices"][0] | {"finish_reason": "content_filter"} == blocked.json()["choices"][0]
        assert blocked.headers["x-genwright-guard"] == "block:harmful" and not echo.asked
        assert said(server.chat("a bomb", stream=True).text) == "I will not help with that."
        assert server.chat("my secret is").json()["choices"][0]["message"]["content"] == "my [removed] is"
        server.settled(3)
        assert [row["outcome"] for row in server.records()] == ["blocked", "blocked", "done"]
        assert server.records()[0]["generated_tokens"] == 0


@pytest.mark.parametrize("stream", [True, False])
def test_output_is_looked_at_before_it_is_released(serve_with, echo, stream) -> None:
    with serve_with(echo, guard=Guard()) as server:
        text = server.chat("good words and then poison and more of it", stream=stream).text
        assert "poison" not in text and "The answer was stopped." in text
        redacted = server.chat("my own name is hidden", stream=stream).text
        assert "name" not in redacted.replace('"name"', "") and "XXX" in redacted
        assert server.settled(2)[0]["guard_output"] == "block:harmful" and echo.running == 0


def test_a_profile_limits_an_answer(serve_with, echo) -> None:
    class Profiler:
        def classify(self, request, history):
            return Profile("chatbot", "generation-heavy", 5.0, 1.0, max_tokens=2)

    with serve_with(echo, profiler=Profiler()) as server:
        answer = server.chat("a b c d")
        assert (
            answer.json()["choices"][0]["message"]["content"] == "a b"
            and answer.headers["x-genwright-profile"] == "chatbot"
        )
        assert server.records()[0]["expected_tokens"] == 5.0


def test_an_engine_that_dies_before_the_first_token_loses_nothing(server, echo) -> None:
    echo.die_after = 0
    assert server.chat("one two").json()["choices"][0]["message"]["content"] == "one two"
    assert sorted(row["outcome"] for row in server.settled(2)) == ["done", "retried"] and echo.restarts == 1


def test_an_engine_that_dies_in_the_middle_says_so_in_the_stream(server, echo) -> None:
    echo.die_after = 2
    text = server.chat("one two three four", stream=True).text
    assert said(text).split() == ["one", "two"] and events(text)[-1]["error"]["code"] == "engine_failed"
    record = server.settled(1)[0]
    assert (record["outcome"], record["generated_tokens"], record["prompt_tokens"]) == ("failed", 2, 4)


def test_an_engine_that_is_down_is_503_with_a_time(serve_with) -> None:
    from genwright.serve.engines.http import HttpEngine

    with serve_with(HttpEngine("m", "http://127.0.0.1:9"), patience=0.1) as server:
        answer = server.chat("hi")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert server.http.get("/ready").status_code == 503 and server.http.get("/health").status_code == 200
        assert server.settled(2)[-1]["outcome"] in ("failed", "retried")


def test_the_second_engine_answers_while_the_first_is_down(serve_with, echo) -> None:
    from genwright.serve.engines.http import HttpEngine

    with serve_with(HttpEngine("m", "http://127.0.0.1:9"), echo, patience=0.1) as server:
        assert server.chat("hi there").json()["choices"][0]["message"]["content"] == "hi there"
        assert {row["engine"]: row["outcome"] for row in server.settled(2)} == {"remote": "retried", "echo": "done"}


def test_a_client_that_leaves_frees_the_engine(server, echo) -> None:
    echo.hold = threading.Event()
    with server.http.stream(
        "POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": "a b c d"}], "stream": True}
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert echo.running == 1
    record = server.settled(1)[0]
    assert echo.running == 0 and record["outcome"] == "cancelled"
    assert (record["prompt_tokens"], record["generated_tokens"]) == (4, 1)


GOOD = {"messages": [{"role": "user", "content": "hi"}]}
WRONG = [
    (b"{", "not JSON"), (b"[]", "must be a JSON object"), (b"\xff\xfe", "not UTF-8"), (b'{"messages": NaN}', "NaN"),
    (b"[" * 100_000, "nested"), (json.dumps({**GOOD, "temperature": "hot"}).encode(), "temperature must be"),
    (json.dumps({**GOOD, "temperature": 9}).encode(), "from 0 to 2"), (json.dumps({**GOOD, "max_tokens": -1}).encode(), "max_tokens"),
    (json.dumps({**GOOD, "max_tokens": True}).encode(), "whole number"), (json.dumps({**GOOD, "n": 3}).encode(), "n must be"),
    (json.dumps({**GOOD, "lora": [{"id": 0, "scale": 1}]}).encode(), "not taken"), (b'{"messages": []}', "at least one"),
    (json.dumps({"messages": [{"role": "boss", "content": "x"}]}).encode(), "role must be"),
    (json.dumps({"messages": [{"role": "user", "content": "a\0b"}]}).encode(), "NUL"),
    (json.dumps({"messages": [{"role": "user", "content": "\ud800"}]}).encode(), "surrogate"),
    (json.dumps({"messages": [{"role": "user", "content": {"a": 1}}]}).encode(), "content must be"),
    (json.dumps({"messages": [{"role": "user", "content": "word " * 100_000}]}).encode(), "characters"),
    (json.dumps({**GOOD, "tools": [{"type": "x"}]}).encode(), "tools"), (json.dumps({**GOOD, "model": 3}).encode(), "model"),
    (json.dumps({**GOOD, "response_format": {"type": "xml"}}).encode(), "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_bodies_are_a_clear_400(server, body: bytes, words: str) -> None:
    answer = server.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_large_bodies_other_types_and_other_paths(server) -> None:
    assert server.http.post("/v1/chat/completions", content=b" " * 10_000_001).status_code == 413
    assert (
        server.http.post("/v1/chat/completions", content=b"x", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    assert server.http.get("/v1/chat/completions").status_code == 405
    assert server.http.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert server.chat("still here").status_code == 200


def test_a_flood_of_headers_is_431_and_others_are_unaffected(server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as flood:
        flood.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * (HEAD_BYTES + 10))
        assert flood.recv(100).startswith(b"HTTP/1.1 431")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost:")
        assert server.chat("hi").status_code == 200


def test_a_head_that_never_ends_is_closed(serve_with, echo, monkeypatch) -> None:
    monkeypatch.setattr("genwright.serve.server.HEAD_SECONDS", 0.05)
    with serve_with(echo) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as idle:
            assert idle.recv(100).startswith(b"HTTP/1.1 408")
        assert server.chat("hi").status_code == 200


def test_a_body_that_never_ends_is_408(serve_with, echo, monkeypatch) -> None:
    monkeypatch.setattr("genwright.serve.gateway.BODY_SECONDS", 0.05)
    with serve_with(echo) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_browsers_elsewhere_are_let_in_only_when_named(serve_with, server, echo) -> None:
    assert (
        "access-control-allow-origin" not in server.http.get("/health", headers={"Origin": "http://a.example"}).headers
    )
    with serve_with(echo, cors=("http://a.example",)) as open_one:
        told = open_one.http.get("/health", headers={"Origin": "http://a.example"}).headers
        assert told["access-control-allow-origin"] == "http://a.example"


def test_the_page_loads_nothing_from_elsewhere(server) -> None:
    page = server.http.get("/")
    assert page.status_code == 200 and "http://" not in page.text and "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_metrics_are_prometheus(server) -> None:
    server.chat("one two")
    text = server.http.get("/metrics").text
    assert 'genwright_generated_tokens_total{expert="base",outcome="done",engine="echo"} 2' in text
    assert 'genwright_engine_up{engine="echo",rank="0"} 1' in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_the_official_client_needs_no_change(server) -> None:
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=httpx.Client()) as client:
        answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "one two"}])
        assert answer.choices[0].message.content == "one two" and answer.usage.completion_tokens == 2
        with client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "a b"}], stream=True
        ) as stream:
            assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == "a b "
        assert client.embeddings.create(model="auto", input="x", encoding_format="float").data[0].embedding == [1.0]
        assert [one.id for one in client.models.list()] == ["auto", "echo"]
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], temperature=7)
        with pytest.raises(openai.NotFoundError, match="nobody"):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
