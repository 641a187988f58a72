"""What the serving benchmarks are made of: an engine that answers at once, a gateway before it, a client, an open-loop load.

    python benchmarks/serve_parts.py engine --port 9000 --tokens 16 --cores 1
    python benchmarks/serve_parts.py gateway --engine http://127.0.0.1:9000 --port 9001 --cores 0

The engine speaks OpenAI's chat completions, streamed and whole, with usage; every answer has the same N tokens and takes no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

HERE = Path(__file__).resolve()
PROMPT = "What is the capital of the country in which the river Danube ends, and how many people live there?"
EXPERTS = 10


class FakeEngine(asyncio.Protocol):
    """One connection to the engine that answers at once."""

    tokens = 16

    def connection_made(self, transport: Any) -> None:
        """A client is there."""
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            if len(rest) < length:
                return
            body, self.data = rest[:length], rest[length:]
            self.transport.write(self.answer(json.loads(body) if body else {}))

    def answer(self, asked: dict[str, Any]) -> bytes:
        """Bytes of a whole or streamed answer."""
        base = {"id": "fake", "object": "chat.completion", "created": 1, "model": asked.get("model", "fake")}
        usage = {"prompt_tokens": 24, "completion_tokens": self.tokens, "total_tokens": 24 + self.tokens}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "word " * self.tokens}
            told = {**base, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
            return _head("application/json", json.dumps(told).encode())
        pieces = [{"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}] * self.tokens
        pieces += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        text = b"".join(
            b"data: " + json.dumps({**base, "object": "chat.completion.chunk", **one}).encode() + b"\n\n"
            for one in pieces
        )
        return _head("text/event-stream", text + b"data: [DONE]\n\n")


def _head(kind: str, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind.encode(), len(body), body)


async def run_engine(port: int, tokens: int) -> None:
    """Until the end of the process."""
    FakeEngine.tokens = tokens
    server = await asyncio.get_running_loop().create_server(FakeEngine, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def run_gateway(engine_url: str, port: int, folder: Path, parts: Sequence[str]) -> None:
    """The product's gateway with EXPERTS named experts, and what `parts` names: router, guard."""
    from genwright.serve.answers import Answers, Parts
    from genwright.serve.contracts import Expert
    from genwright.serve.energy import Estimated, Split
    from genwright.serve.engines.http import HttpEngine
    from genwright.serve.gateway import Gateway, application
    from genwright.serve.meter import Meter
    from genwright.serve.pool import Pool
    from genwright.serve.server import listening, run_until, server_of

    experts = {f"expert-{number}": Expert(f"expert-{number}", folder, "v1") for number in range(EXPERTS)}

    class Library:
        def experts(self) -> tuple[Expert, ...]:
            return tuple(experts.values())

        def get(self, name: str) -> Expert | None:
            return experts.get(name)

    pool, meter = Pool([HttpEngine("fake", engine_url)]), Meter(folder)
    split = Split(Estimated(20.0, 6.0, 2, lambda: 0.0), 6.0)
    answers = Answers(Parts(pool, meter, split, "fake", library=Library(), **_extra(parts)))  # type: ignore[arg-type]
    bound, stop = listening("127.0.0.1", port), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await pool.start()
    await run_until(server_of(application(Gateway(answers))), bound, stop)
    await pool.stop()
    answers.close()
    meter.close()


def _extra(parts: Sequence[str]) -> dict[str, Any]:
    """The product's router over EXPERTS experts, its guard (with numbers that allow everything), its profiler."""
    from genwright.serve.embed import packaged_embedder
    from genwright.serve.profiler import HistoryProfiler

    embedder = packaged_embedder() if {"router", "guard"} & set(parts) else None
    made = {"router": lambda: _router(embedder), "guard": lambda: _guard(embedder), "profiler": HistoryProfiler}
    return {name: made[name]() for name in parts}


def _router(embedder: Any) -> Any:
    from genwright.serve.background import FRAMES, TOPICS
    from genwright.serve.expert_profile import profile_of
    from genwright.serve.router import CentroidRouter

    texts = [
        [frame.format(topic) for frame in FRAMES for topic in TOPICS[number::EXPERTS]] for number in range(EXPERTS)
    ]
    return CentroidRouter(
        embedder, [profile_of(some, embedder, name=f"expert-{number}") for number, some in enumerate(texts)]
    )


def _guard(embedder: Any) -> Any:
    import numpy as np

    from genwright.serve.guard import ConversationGuard, Head
    from genwright.serve.risk import FEATURES
    from genwright.serve.words import BINS

    talk = len(FEATURES)
    zeros = lambda size: np.zeros(size, np.float32)
    thresholds = {"harmful": 0.99, "injection": 0.99, "escalation": 0.99}
    return ConversationGuard(embedder, Head(
        zeros(embedder.width + BINS), 0.0, zeros(embedder.width + BINS), 0.0, np.ones(BINS, np.float32), zeros(talk), 0.0,
        zeros(talk), np.ones(talk, np.float32), thresholds, embedder.sha256))  # fmt: skip


class Client:
    """One connection that is kept; answers are read as bytes, so the client costs little."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes, key: str = "") -> tuple[int, float, float, bytes]:
        """(status, seconds to the first byte of the answer's body, seconds to its end, body)."""
        began = time.perf_counter()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        authorization = f"Authorization: Bearer {key}\r\n".encode() if key else b""
        self.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s"
            % (authorization, len(body), body)
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None)
        first, told = None, bytearray()
        while (len(told) < length) if length is not None else not told.endswith(b"0\r\n\r\n"):
            piece = await self.reader.read(65536)
            if not piece:
                break
            first = first or time.perf_counter() - began
            told += piece
        if b"connection: close" in head:
            await self.close()
        return int(head[9:12]), first or 0.0, time.perf_counter() - began, bytes(told)

    async def close(self) -> None:
        """End the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def body_of(model: str, stream: bool, text: str = PROMPT, **more: Any) -> bytes:
    """A chat request."""
    return json.dumps(
        {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream, **more}
    ).encode()


@dataclass
class Load:
    """What an open-loop load measured: requests leave at their times, whatever the earlier ones do."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    failed: int = 0


async def open_loop(port: int, rate: float, seconds: float, bodies: Sequence[bytes], seed: int = 0) -> Load:
    """Poisson arrivals at `rate` per second; a request that finds no free connection opens one."""
    load, free, chance = Load(), [Client(port) for _ in range(4)], random.Random(seed)
    running: set[asyncio.Task[None]] = set()

    async def one(body: bytes) -> None:
        client = free.pop() if free else Client(port)
        status, first, whole, _ = await client.ask(body)
        free.append(client)
        load.failed += status != 200
        load.seconds.append(whole)
        load.first.append(first)

    began, at, number = time.perf_counter(), 0.0, 0
    while at < seconds:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        task = asyncio.ensure_future(one(bodies[number % len(bodies)]))
        running.add(task)
        task.add_done_callback(running.discard)
        at, number = at + chance.expovariate(rate), number + 1
    await asyncio.gather(*running)
    for client in free:
        await client.close()
    return load


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def free_port() -> int:
    """One that nobody listens at now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str], port: int, core: int | None, path: str = "/health", patience: float = 60.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, on one core, once it answers; ended afterwards."""
    pin = (lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})) if core is not None else None
    with tempfile.NamedTemporaryFile(prefix="genwright-", suffix=".log") as log:
        running = subprocess.Popen(list(command), stdout=log, stderr=log, preexec_fn=pin)
        try:
            wait_for(f"http://127.0.0.1:{port}{path}", running, patience, Path(log.name))
            yield running
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def wait_for(url: str, running: subprocess.Popen[bytes], patience: float, log: Path) -> None:
    """Until anything is answered at the address. Errors: RuntimeError when the process ends first or never answers."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if running.poll() is not None:
                raise RuntimeError(
                    f"{running.args} ended with {running.returncode}: {log.read_text()[-2000:]}"
                ) from None
            time.sleep(0.02)
    raise RuntimeError(f"{url} does not answer")


def engine_command(port: int, tokens: int) -> list[str]:
    """The engine that answers at once."""
    return [sys.executable, str(HERE), "engine", "--port", str(port), "--tokens", str(tokens)]


def gateway_command(port: int, engine: int, parts: Sequence[str] = ()) -> list[str]:
    """The gateway before it."""
    return [
        sys.executable,
        str(HERE),
        "gateway",
        "--port",
        str(port),
        "--engine",
        f"http://127.0.0.1:{engine}",
        "--parts",
        ",".join(parts),
    ]


def main() -> None:
    """Run one of the two servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("engine", "gateway"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--engine", default="")
    parser.add_argument("--parts", default="")
    chosen = parser.parse_args()
    if chosen.what == "engine":
        uvloop.run(run_engine(chosen.port, chosen.tokens))
        return
    with tempfile.TemporaryDirectory(prefix="genwright-") as folder:
        parts = [one for one in chosen.parts.split(",") if one]
        uvloop.run(run_gateway(chosen.engine, chosen.port, Path(folder), parts))


if __name__ == "__main__":
    main()
