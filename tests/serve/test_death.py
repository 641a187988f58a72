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
