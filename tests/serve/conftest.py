"""A server on the loopback in a thread of the test's own, before an engine that answers at once or the real llama.cpp."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from genwright.serve.answers import Answers, Parts
from genwright.serve.contracts import Chunk, EngineDown, EngineMetrics, Usage
from genwright.serve.energy import Split
from genwright.serve.gateway import Gateway, application
from genwright.serve.keys import Keys
from genwright.serve.live import Holders, LiveRouter
from genwright.serve.meter import Meter, read_records
from genwright.serve.pool import Pool
from genwright.serve.server import listening, run_until, server_of


class Echo:
    """An engine that says the last message's words again, one token a word, and knows what it was asked."""

    name, model, ours, restarts = "echo", "echo", True, 0

    def __init__(self) -> None:
        self.alive, self.asked, self.closed, self.running = True, [], 0, 0
        self.die_after: int | None = None
        self.hold: threading.Event | None = None
        self.loaded: list[str] = []

    async def start(self) -> None:
        self.alive = True

    async def stop(self) -> None:
        self.alive = False

    async def ready(self) -> bool:
        return self.alive

    async def generate(self, kind: str, body: dict[str, Any], expert: Any) -> Any:
        if not self.alive:
            raise EngineDown("echo is down")
        self.asked.append((dict(body), expert))
        text = body["prompt"] if kind == "completion" else body["messages"][-1]["content"]
        words = str(text).split()[: body.get("max_tokens") or 10_000]
        self.running += 1
        try:
            if not body.get("stream"):
                if self.die_after is not None:
                    self.alive, self.die_after = False, None
                    raise EngineDown("echo died")
                message = {
                    "message": {"role": "assistant", "content": " ".join(words)},
                    "finish_reason": "stop",
                    "index": 0,
                }
                told = {"id": "e", "object": "chat.completion", "created": 0, "choices": [message]}
                usage = Usage(len(str(text).split()), 0, len(words))
                yield Chunk(
                    {
                        **told,
                        "usage": {
                            "prompt_tokens": usage.prompt,
                            "completion_tokens": usage.generated,
                            "total_tokens": 0,
                        },
                    },
                    " ".join(words),
                    len(words),
                    usage,
                )
                return
            for number, word in enumerate(words):
                if self.die_after is not None and number == self.die_after:
                    self.alive, self.die_after = False, None
                    raise EngineDown("echo died")
                while self.hold is not None and number > 0 and not self.hold.is_set():
                    await asyncio.sleep(0.005)
                piece = {"delta": {"content": word + " "}, "index": 0, "finish_reason": None}
                yield Chunk(
                    {"id": "e", "choices": [piece]}, word + " ", 1, Usage(len(str(text).split()), 0, number + 1)
                )
            yield Chunk({"id": "e", "choices": [{"delta": {}, "index": 0, "finish_reason": "stop"}]}, "", 0, None)
        finally:
            self.running -= 1
            self.closed += 1

    async def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"embedding": [1.0], "index": 0}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }

    async def load_adapter(self, name: str, path: Path, version: str) -> None:
        self.loaded.append(f"{name}@{version}")

    async def unload(self, name: str, version: str) -> None:
        self.loaded.remove(f"{name}@{version}")

    async def cancel(self, request_id: str) -> None:
        pass

    async def metrics(self) -> EngineMetrics:
        return EngineMetrics(running=self.running, adapters=tuple(self.loaded))


class Ticks:
    """A power meter that reads one joule more each time."""

    source = "rapl"

    def __init__(self) -> None:
        self.read = 0.0

    def joules(self) -> float:
        self.read += 1.0
        return self.read


class Serving:
    """A running server, its parts, and a client."""

    def __init__(self, url: str, parts: Parts, folder: Path, certificate: Path | None = None) -> None:
        self.url, self.parts, self.folder = url, parts, folder
        verify = ssl.create_default_context(cafile=certificate) if certificate else True
        self.http = httpx.Client(base_url=url, timeout=20, verify=verify)

    def chat(self, text: str, **more: Any) -> httpx.Response:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
        return self.http.post("/v1/chat/completions", json=body)

    def records(self) -> list[dict[str, Any]]:
        self.parts.meter.flush()
        return read_records(self.folder)

    def settled(self, count: int) -> list[dict[str, Any]]:
        """The records, once there are so many."""
        until = time.monotonic() + 10
        while len(found := self.records()) < count and time.monotonic() < until:
            time.sleep(0.01)
        return found


@contextmanager
def serving(
    engines: list[Any],
    folder: Path,
    *,
    keys: Keys | None = None,
    patience: float = 5.0,
    cors: tuple[str, ...] = (),
    library_of: Callable[[Pool, Holders], Any] | None = None,
    tls: tuple[Path, Path] | None = None,
    **parts: Any,
) -> Iterator[Serving]:
    meter, pool = Meter(folder), Pool(engines, patience)
    known = Parts(pool, meter, Split(Ticks(), 0.0), parts.pop("model", engines[0].model), parts.pop("context", 512))
    live = library_of(pool, known.holders) if library_of is not None else None
    router = LiveRouter(live, parts.pop("make_router", None)) if live is not None else None
    answers = Answers(replace(known, **({"library": live, "router": router} if live is not None else {}), **parts))
    app = application(Gateway(answers, keys), cors=cors, live=live)
    bound = listening("127.0.0.1", 0)
    started, loop_of, stop_of = threading.Event(), [], []

    async def alive() -> None:
        stop = asyncio.Event()
        loop_of.append(asyncio.get_running_loop())
        stop_of.append(stop)
        if live is not None:
            await live.refresh()
        await pool.start()
        watching = asyncio.create_task(live.watch()) if live is not None else None
        server = server_of(app, *(tls or ()))
        task = asyncio.create_task(run_until(server, bound, stop))
        while not server.started:
            await asyncio.sleep(0.005)
        started.set()
        await task
        if watching is not None:
            watching.cancel()
            await live.stop()
        await pool.stop()

    thread = threading.Thread(target=lambda: asyncio.run(alive()))
    thread.start()
    assert started.wait(60), "the server did not start"
    one = Serving(
        f"http{'s' if tls else ''}://127.0.0.1:{bound.getsockname()[1]}", answers.parts, folder, tls[0] if tls else None
    )
    try:
        yield one
    finally:
        one.http.close()
        loop_of[0].call_soon_threadsafe(stop_of[0].set)
        thread.join(20)
        answers.close()
        meter.close()
        bound.close()


@contextmanager
def running(app: Any) -> Iterator[httpx.Client]:
    """A client of an application that listens, its own lifespan included, while the block runs."""
    bound, stop_of, loop_of, started = listening("127.0.0.1", 0), [], [], threading.Event()

    async def alive() -> None:
        stop_of.append(asyncio.Event())
        loop_of.append(asyncio.get_running_loop())
        server = server_of(app)
        task = asyncio.create_task(run_until(server, bound, stop_of[0]))
        while not server.started:
            await asyncio.sleep(0.005)
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(alive()))
    thread.start()
    assert started.wait(60), "the server did not start"
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=60) as client:
            yield client
    finally:
        loop_of[0].call_soon_threadsafe(stop_of[0].set)
        thread.join(20)
        bound.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo, tmp_path: Path) -> Iterator[Serving]:
    with serving([echo], tmp_path / "meter") as one:
        yield one


@pytest.fixture
def serve_with(tmp_path: Path) -> Callable[..., Any]:
    """A server before these engines, with these parts, while the block runs."""
    return lambda *engines, **parts: serving(list(engines), tmp_path / "meter", **parts)
