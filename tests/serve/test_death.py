"""What becomes of requests when an engine dies: answered by the next life of it, refused with a time, never lost, always metered."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genwright.serve.contracts import EngineDown


def until(true) -> bool:
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(true())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signals")
def test_requests_in_flight_at_a_real_engines_death_are_answered_by_its_next_life(tmp_path: Path, serve_with) -> None:
    """Four whole answers and a stream are on their way when llama.cpp is killed: each is answered, as it was without the death."""
    from tests.serve.test_llamacpp import write_model, write_tiny

    from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings

    write_tiny(tmp_path / "model", "decoder", seed=3)
    write_model(tmp_path / "model", tmp_path / "model.gguf", "f32")
    engine = LlamaCpp("tiny", LlamaSettings(tmp_path / "model.gguf", tmp_path, context=128, threads=1))
    body = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    with serve_with(engine, model="tiny", context=128, patience=60.0) as server, ThreadPoolExecutor(5) as pool:
        calm = server.chat("the red house", **body).json()["choices"][0]["message"]["content"]
        dying = engine.pid
        os.kill(dying, signal.SIGSTOP)
        waiting = [pool.submit(server.chat, "the red house", **body, stream=number == 4) for number in range(5)]
        assert until(lambda: engine._now.busy == 5)
        os.kill(dying, signal.SIGKILL)
        told = [one.result() for one in waiting]
        assert [one.status_code for one in told] == [200] * 5 and engine.restarts == 1 and engine.pid != dying
        assert {one.json()["choices"][0]["message"]["content"] for one in told[:4]} == {calm}
        assert told[4].text.endswith("data: [DONE]\n\n") and '"error"' not in told[4].text
        rows = server.settled(11)
    outcomes = [row["outcome"] for row in rows]
    assert sorted(outcomes) == ["done"] * 6 + ["retried"] * 5
    assert {row["generated_tokens"] for row in rows} == {0, 6}, "an attempt without an answer made no tokens"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_real_engine_that_hangs_is_killed_and_its_requests_are_answered_by_the_next_life(
    tmp_path: Path, serve_with, monkeypatch, capfd
) -> None:
    """llama.cpp is stopped (SIGSTOP: alive, and silent) under a whole answer and a stream that has begun, then while nobody asks."""
    from tests.e2e import tiny
    from tests.serve.test_llamacpp import write_model, write_tiny

    from genwright.serve.engines import http, pulse
    from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings

    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(http, "HEALTH_SECONDS", 0.2)
    sizes = {
        "max_position_embeddings": 4096,
        "hidden_size": 128,
        "num_hidden_layers": 4,
    }  # so that a stream takes a while
    monkeypatch.setattr(tiny, "SIZES", {**tiny.SIZES, **sizes})
    write_tiny(tmp_path / "model", "decoder", seed=3)
    write_model(tmp_path / "model", tmp_path / "model.gguf", "f32")
    engine = LlamaCpp("tiny", LlamaSettings(tmp_path / "model.gguf", tmp_path, context=4096, parallel=2, threads=1))
    body = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    with serve_with(engine, model="tiny", context=4096, patience=60.0) as server, ThreadPoolExecutor(2) as pool:
        calm = server.chat("the red house", **body).json()["choices"][0]["message"]["content"]
        first, told = (
            engine.pid,
            {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 4000, "ignore_eos": True},
        )
        with server.http.stream("POST", "/v1/chat/completions", json={**told, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line.startswith("data: {"))
            os.kill(first, signal.SIGSTOP)
            whole = pool.submit(server.chat, "the red house", **body)
            rest = list(lines)
        assert '"engine_failed"' in rest[-4] and rest[-2] == "data: [DONE]", (
            "what had begun ends with an error and is not silent"
        )
        assert whole.result().json()["choices"][0]["message"]["content"] == calm
        second = engine.pid
        assert engine.restarts == 1 and second != first and "llamacpp hangs (2 answers" in capfd.readouterr().err
        os.kill(second, signal.SIGSTOP)
        assert until(lambda: server.http.get("/ready").status_code == 503) and engine.pid == second, (
            "in doubt, and not yet killed"
        )
        assert until(lambda: engine.restarts == 2 and engine.alive) and engine.pid != second
        assert server.chat("the red house", **body).status_code == 200
        rows = server.settled(5)
    assert sorted(row["outcome"] for row in rows) == ["done", "done", "done", "failed", "retried"]
    for row in (row for row in rows if row["outcome"] == "done"):  # whole answers: as the engine tells it
        assert 0 < row["ttft_seconds"] < row["seconds"] and 0 < row["tpot_seconds"] * 5 < row["seconds"]


def test_what_waits_for_its_client_does_not_hang() -> None:
    """Signs of life by hand: a piece; work; an answer at /health where nothing is waited for. Work alone while nothing is: none."""
    import asyncio

    from genwright.serve.engines.pulse import Pulse

    class Client:
        pieces, waiting, there = 0, 0, True

        async def answers(self) -> bool:
            return self.there

    client, work = Client(), [0.0]
    pulse = Pulse(None, client)
    pulse._computed = lambda: work[0]
    beats = lambda: asyncio.run(pulse.beats())
    assert beats(), "an idle engine that answers"
    client.waiting = 1
    assert not beats(), "that it answers /health is no sign while a request waits"
    work[0] += 0.02
    assert beats() and not beats()
    client.pieces += 1
    assert beats() and not beats()
    client.waiting = 0
    assert beats(), "its client does not read: the engine owes nothing"
    client.there = False
    assert not beats()


def test_an_engine_that_lives_and_never_has_the_expert_is_waited_for_once(serve_with, echo) -> None:
    """It says so again and again: the wait begins with the first time."""
    asked = []

    async def generate(kind, body, expert):
        asked.append(1)
        raise EngineDown("the expert is being loaded", retry_after=2.0)
        yield

    echo.generate = generate
    with serve_with(echo, patience=0.3) as server:
        answer = server.chat("one two")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "2" and 2 <= len(asked) < 10


def test_a_request_that_ends_every_engine_is_given_up(serve_with, echo) -> None:
    """Each life of the engine dies under it: three, and not one for ever."""
    start = echo.start

    async def doomed() -> None:
        await start()
        echo.die_after = 0

    echo.start = doomed
    with serve_with(echo, patience=60.0) as server:
        answer = server.chat("one two")
        assert answer.status_code == 503 and "retry-after" in answer.headers and echo.restarts in (2, 3)
        assert sorted(row["outcome"] for row in server.settled(4)) == ["failed", *["retried"] * 3]


def test_while_an_engine_is_started_again_new_requests_are_503_with_a_time_and_then_answered(serve_with, echo) -> None:
    free, start = threading.Event(), echo.start

    async def late() -> None:
        if not free.is_set():
            raise EngineDown("not yet")
        await start()

    with serve_with(echo, patience=0.2) as server:
        echo.start, echo.alive = late, False
        refused = server.chat("one two")
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "engine_down" and server.http.get("/ready").status_code == 503
        free.set()
        assert until(lambda: server.http.get("/ready").status_code == 200) and server.chat("one two").status_code == 200
        outcomes = [row["outcome"] for row in server.settled(2)]
    assert outcomes == ["failed", "done"], (
        "one row for each request: no attempt was made on an engine that was not there"
    )


def test_an_engine_that_never_comes_back_ends_an_accepted_request_with_503(serve_with, echo) -> None:
    async def never() -> None:
        raise EngineDown("gone for good")

    with serve_with(echo, patience=0.3) as server:
        echo.start, echo.die_after = never, 0
        answer = server.chat("one two")
        assert answer.status_code == 503 and "retry-after" in answer.headers
        assert sorted(row["outcome"] for row in server.settled(2)) == ["failed", "retried"]


def test_an_engine_that_did_not_start_at_first_is_tried_again(serve_with, echo) -> None:
    import asyncio

    from genwright.serve.pool import Pool

    tries, start = [], echo.start

    async def second() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise EngineDown("the port is taken")
        await start()

    async def run() -> None:
        echo.start, echo.alive = second, False
        pool = Pool([echo])
        with pytest.raises(EngineDown, match="port is taken"):
            await pool.start()
        while not await pool.ready():
            await asyncio.sleep(0.01)
        await pool.stop()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert len(tries) == 2
