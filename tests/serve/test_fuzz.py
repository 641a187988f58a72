"""Requests that nobody thought of: schemathesis over our own OpenAPI document, and many clients that do nothing."""

from __future__ import annotations

import socket

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

load_all_checks()
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
PAUSE_SECONDS = 30.0
"""No answer of an engine that answers at once takes this long, on however busy a machine: longer is a hang."""


def fuzz(url: str, examples: int, number: int = 7) -> int:
    """Ask each operation in both modes; returns how many requests were sent. Raises at the first answer that we caused and should not."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    sent = 0
    for operation in (one.ok() for one in schema.get_all_operations()):
        for mode in MODES:
            if mode is GenerationMode.NEGATIVE and operation.method.upper() != "POST":
                continue

            @seed(number)
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case) -> None:
                nonlocal sent
                sent += 1
                answer = case.call(timeout=PAUSE_SECONDS)
                case.validate_response(answer, checks=CHECKS)

            ask()
    return sent


def test_no_request_makes_us_fail(server) -> None:
    assert fuzz(server.url, 8) > 50
    assert server.chat("still here").status_code == 200 and server.parts.pool.first.running == 0


def test_a_stream_is_what_the_document_says(server) -> None:
    """Each event of it; the fuzz above asks for a stream now and then only."""
    chat = schemathesis.openapi.from_url(f"{server.url}/openapi.json")["/v1/chat/completions"]["POST"]
    case = chat.Case(
        body={"messages": [{"role": "user", "content": "one two"}], "stream": True}, media_type="application/json"
    )
    answer = case.call(timeout=PAUSE_SECONDS)
    case.validate_response(answer, checks=CHECKS)
    assert answer.headers["content-type"] == ["text/event-stream; charset=utf-8"]


@pytest.mark.proof
def test_ten_thousand_requests_make_us_fail_nowhere(server) -> None:
    sent, number = 0, 0
    while sent < 10_000:
        number += 1
        sent += fuzz(server.url, 1_000, number)
    assert server.chat("still here").status_code == 200 and server.parts.pool.first.running == 0


def idle(server, count: int) -> list[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    return [socket.create_connection((host, int(port)), timeout=10) for _ in range(count)]


def test_a_thousand_idle_connections_and_long_prompts_leave_others_alone(serve_with, echo, monkeypatch) -> None:
    """A prompt of 100,000 words goes to an engine whose context holds it, and is refused by one whose context does not."""
    connections = []
    with serve_with(echo, context=131_072) as server:
        try:
            connections += idle(server, 1_000)
            long = server.chat("word " * 100_000, max_tokens=3)
            assert long.status_code == 200 and long.json()["usage"]["prompt_tokens"] == 100_000
            answers = [server.chat("hi there") for _ in range(20)]
            assert {answer.status_code for answer in answers} == {200}
        finally:
            for one in connections:
                one.close()
    with serve_with(echo, context=512) as server:
        told = server.chat("word " * 100_000)
        assert told.status_code == 400 and told.json()["error"]["code"] == "context_length_exceeded"


def test_a_client_that_reads_nothing_holds_up_nobody(server) -> None:
    """Its answers fill the socket; the next client's do not wait."""
    body = b'{"messages": [{"role": "user", "content": "%s"}], "stream": true}' % (b"word " * 9_000)
    request = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    deaf = idle(server, 4)
    for one in deaf:
        one.sendall(request.replace(b"completions", b"chat/completions") + body)
    with httpx.Client(base_url=server.url, timeout=PAUSE_SECONDS) as client:
        assert (
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}).status_code
            == 200
        )
    for one in deaf:
        one.close()
