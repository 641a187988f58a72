"""Promises that hand mutations found untested: each of these failed when a line was changed."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genwright.serve.contracts import Chunk, Expert, Route, Usage
from genwright.serve.engines.http import HttpEngine
from genwright.serve.keys import Keys
from genwright.serve.meter import Meter, Record


class Library:
    law = Expert("law", Path("law"), "v1")

    def experts(self):
        return (self.law,)

    def get(self, name):
        return self.law if name == "law" else None


def test_the_second_engine_never_answers_for_an_expert(serve_with, echo) -> None:
    with serve_with(HttpEngine("m", "http://127.0.0.1:9"), echo, patience=0.1, library=Library()) as server:
        assert server.chat("hi", model="law").status_code == 503 and not echo.asked


def test_tokens_of_a_key_count_and_close_its_day(serve_with, echo, tmp_path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.make("ann", tokens_per_day=4)
    with serve_with(echo, keys=keys) as server:
        server.http.headers["Authorization"] = f"Bearer {secret}"
        assert server.chat("one two").status_code == 200
        late = server.chat("one two")
        assert late.status_code == 429 and "4 tokens in a day" in late.text


def test_many_requests_at_a_time_do_not_outrun_a_limit(serve_with, echo, tmp_path) -> None:
    """Twenty of five tokens at a time, and ten are left: what runs holds its part, and what ended gives back what it did not use."""
    keys, echo.hold = Keys(tmp_path / "keys.json"), threading.Event()
    head = {"Authorization": f"Bearer {keys.make('ann', tokens_per_day=10)}"}
    with serve_with(echo, keys=keys) as server, ThreadPoolExecutor(20) as pool:
        body = {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 5, "stream": True}
        ask = lambda _: server.http.post("/v1/chat/completions", json=body, headers=head)
        asked = [pool.submit(ask, number) for number in range(20)]
        until = time.monotonic() + 20
        while sum(one.done() for one in asked) < 18 and time.monotonic() < until:
            time.sleep(0.01)
        echo.hold.set()
        answers = [one.result() for one in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 18
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "runs now" in refused.json()["error"]["message"] and int(refused.headers["retry-after"]) == 1
        assert len(server.settled(2)) == 2
        assert ask(0).status_code == 200, "each took four (two read, two said): eight of ten"
        assert "has used its 10 tokens" in ask(0).text


def test_a_conversation_belongs_to_its_key(serve_with, echo, tmp_path) -> None:
    held = []

    class Router:
        def route(self, request, before):
            held.append(before)
            return Route("law", 0.9, 0.4, "fits")

    keys = Keys(tmp_path / "keys.json")
    secrets = [keys.make(name) for name in ("ann", "bob")]
    with serve_with(echo, keys=keys, library=Library(), router=Router()) as server:
        for secret in (secrets[0], secrets[0], secrets[1]):
            server.http.headers["Authorization"] = f"Bearer {secret}"
            assert server.chat("a court").status_code == 200
    assert held == [None, "law", None]


def test_the_first_token_is_timed_and_cached_ones_are_no_work(serve_with, echo) -> None:
    more, done = threading.Event(), []

    async def slow(kind, body, expert):
        yield Chunk({"choices": [{"index": 0, "delta": {"content": "a"}}]}, "a", 1, Usage(10, 9, 1))
        import asyncio

        await asyncio.sleep(0.2)
        yield Chunk({"choices": [{"index": 0, "delta": {"content": "b"}}]}, "b", 1, Usage(10, 9, 2))
        more.set()

    echo.generate = slow
    with serve_with(echo) as server:
        split = server.parts.split
        end = split.end
        split.end = lambda name: (
            done.append((split.running[name].computed, split.running[name].generated)),
            end(name),
        )[1]
        server.chat("x", stream=True)
        row = server.settled(1)[0]
    assert done == [(1, 2)] and more.is_set()
    assert row["ttft_seconds"] < row["seconds"] - 0.15 and row["tpot_seconds"] > 0.15


@pytest.mark.parametrize("name", ["id_slot", "cache_prompt", "request_id", "grammar"])
def test_an_engines_own_keys_are_refused(server, name: str) -> None:
    told = server.chat("hi", **{name: 1}).json()["error"]
    assert told["code"] == "unsupported_parameter" and told["param"] == name


def test_a_body_deeper_than_the_limit_is_refused(server) -> None:
    deep = json.loads("[" * 100 + "]" * 100)
    assert "nested deeper than 64" in server.chat("hi", metadata={"a": deep}).text


def test_a_full_file_is_rotated_at_its_limit_and_the_oldest_dropped(tmp_path: Path) -> None:
    meter = Meter(tmp_path, most_rows=3)
    for number in range(8):
        meter.add(Record(str(number), began=float(number)))
        meter.flush()
    meter.close()
    rows = {}
    for name in ("usage-1", "usage"):
        with sqlite3.connect(tmp_path / f"{name}.sqlite") as database:
            rows[name] = [row[0] for row in database.execute("SELECT id FROM requests ORDER BY began")]
        database.close()
    assert rows == {"usage-1": ["3", "4", "5"], "usage": ["6", "7"]}


def test_outcomes_are_told_apart_by_metrics(server, echo) -> None:
    echo.die_after = 2
    server.chat("one two three", stream=True)
    server.settled(1)
    assert (
        'genwright_requests_total{expert="base",outcome="failed",engine="echo"} 1' in server.http.get("/metrics").text
    )
