"""The gateway before the real llama.cpp: throughput over the bare engine's, and a soak. Called by serve.py.

Soak: the arrivals and lengths of a trace, scaled; experts change versions every 10 s; the engine is killed every 5 minutes; one
client in twenty leaves in the middle. Checked: each answer is the one that its version gave alone, every token that a client was
told is in the meter, no request is lost without a word, and the gateway's memory in the last quarter is that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import datetime
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from serve_parts import body_of, free_port, process

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
EXPERTS = ("law", "art", "code")
PROMPTS = [
    f"the {colour} house number {number} stands near the"
    for colour in ("red", "green", "blue", "white")
    for number in (3, 31)
]
LONGEST = 24
SWAP_SECONDS, KILL_SECONDS, LEAVES = 10.0, 300.0, 0.05


async def run_gateway(gguf: Path, base: Path, folder: Path, port: int, context: int) -> None:
    """The product's parts around a real engine and a library on disk; writes the engine's own address beside the meter."""
    from genwright.serve.answers import Answers, Parts
    from genwright.serve.energy import Estimated, Split
    from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings
    from genwright.serve.experts import ExpertLibrary
    from genwright.serve.gateway import Gateway, application
    from genwright.serve.live import Holders, LiveLibrary
    from genwright.serve.meter import Meter
    from genwright.serve.pool import Pool
    from genwright.serve.server import listening, run_until, server_of

    engine = LlamaCpp("tiny", LlamaSettings(gguf, folder, base, context=context, threads=1))
    pool, meter, holders = Pool([engine]), Meter(folder), Holders()
    live = LiveLibrary(ExpertLibrary(folder / "library"), pool, holders)
    split = Split(Estimated(20.0, 6.0, 2, engine.cpu_seconds), 6.0)
    answers = Answers(Parts(pool, meter, split, "tiny", context, library=live, holders=holders))
    await live.refresh()
    await pool.start()
    (folder / "engine.json").write_text(json.dumps(engine._now.client.address if engine._now else ""))
    bound, stop = listening("127.0.0.1", port), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_until(server_of(application(Gateway(answers), live=live)), bound, stop)
    await live.stop()
    await pool.stop()
    answers.close()
    meter.close()


@contextmanager
def gateway(gguf: Path, base: Path, folder: Path, context: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a running gateway."""
    port = free_port()
    command = [sys.executable, str(HERE), str(gguf), str(base), str(folder), str(port), str(context)]
    with process(command, port, None, "/ready") as running:
        yield port, running.pid


def throughput(chosen: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of four clients at a time, bare and through the gateway, in turn, the same engine process.

    A turn of ten seconds strays by several percent with whatever else the machine does, so there are many, and what is compared are
    all tokens over all seconds of each side. `cpu_ms_per_token`: of the gateway's process, while it is asked and while it is not.
    """
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        folder = Path(work)
        base, gguf = small_model(folder, "smollm2")
        with gateway(gguf, base, folder, 512) as (port, pid):
            bare = int(json.loads((folder / "engine.json").read_text()).rsplit(":", 1)[1])
            turns: dict[str, list[Turn]] = {"engine": [], "gateway": []}
            for number in range(4 * chosen.rounds + 1):
                for name, at in (("engine", bare), ("gateway", port))[:: 1 if number % 2 else -1]:
                    turn = uvloop.run(tokens_of(at, chosen.seconds / 2, pid))
                    turns[name] += [turn] if number else []
    rates = {name: [turn.tokens / turn.seconds for turn in rows] for name, rows in turns.items()}
    whole = {
        name: sum(turn.tokens for turn in rows) / sum(turn.seconds for turn in rows) for name, rows in turns.items()
    }
    ratios = [ours / theirs for ours, theirs in zip(rates["gateway"], rates["engine"])]
    spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    spent = {
        name: round(1e3 * sum(turn.cpu for turn in rows) / sum(turn.tokens for turn in rows), 3)
        for name, rows in turns.items()
    }
    return {
        "model": base.name, "clients": 4, "tokens_per_second": rates, "ratio": round(whole["gateway"] / whole["engine"], 4),
        "standard_error": spread, "ratios": ratios, "cpu_ms_per_token": spent,
    }  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """Of one side."""

    tokens: int
    seconds: float
    cpu: float
    """Seconds of the gateway's process meanwhile."""


async def tokens_of(port: int, seconds: float, pid: int, tokens: int = 32) -> Turn:
    """Closed loop: each of four clients asks again when it was answered; streams, counted by usage."""
    from genwright.serve.engines.processes import cpu_seconds

    total, until = 0, time.perf_counter() + seconds
    began, cpu = time.perf_counter(), cpu_seconds(pid)

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal total
        while time.perf_counter() < until:
            body = body_of(
                "base",
                True,
                PROMPTS[number],
                max_tokens=tokens,
                temperature=0,
                ignore_eos=True,
                stream_options={"include_usage": True},
            )
            async with session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                total += _usage(await answer.text())["completion_tokens"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        await asyncio.gather(*(client(session, number) for number in range(4)))
    return Turn(total, time.perf_counter() - began, cpu_seconds(pid) - cpu)


def _usage(text: str) -> dict[str, Any]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return next(one["usage"] for one in reversed(events) if one.get("usage"))


def small_model(folder: Path, name: str) -> tuple[Path, Path]:
    """(model folder, GGUF): SmolLM2-135M where it is in the cache, else a tiny model of random weights."""
    sys.path.insert(0, str(ROOT))
    from tests.e2e.tiny import write_model as write_tiny

    from genwright.export.gguf import write_model

    cache = Path.home() / ".cache/genwright/models"
    found = sorted(cache.glob("*smollm2*/**/config.json")) if name != "tiny" else []
    base = found[0].parent if found else folder / "tiny"
    if not found:
        write_tiny(base, "decoder", seed=3)
    write_model(base, folder / "model.gguf", "f16" if found else "f32")
    return base, folder / "model.gguf"


@dataclass
class Seen:
    """What the clients of a soak saw."""

    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Request -> (prompt tokens, generated tokens) of a finished answer."""
    left: dict[str, int] = field(default_factory=dict)
    """Request -> pieces seen before the client left or the engine died."""
    wrong: list[str] = field(default_factory=list)
    differs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def soak(chosen: argparse.Namespace) -> dict[str, Any]:
    """See the top of this file."""
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        folder = Path(work)
        base, gguf = small_model(folder, "tiny")
        adapters = _adapters(base, folder)
        with gateway(gguf, base, folder, 128) as (port, pid):
            seen, kills, swaps = uvloop.run(_soak(port, pid, adapters, _arrivals(chosen), chosen.minutes * 60))
        unaccounted = _unaccounted(folder / "usage.sqlite", seen)
    quarter = max(1, len(seen.resident) // 4)
    second, last = (
        statistics.median(part) for part in (seen.resident[quarter : 2 * quarter], seen.resident[-quarter:])
    )
    return {
        "minutes": chosen.minutes, "requests": sum(seen.counts.values()), "outcomes": dict(seen.counts), "swaps": swaps, "kills": kills,
        "wrong_expert": seen.wrong[:5], "differs_by_rounding": seen.differs, "unaccounted": unaccounted[:5], "lost": seen.lost[:5],
        "first_token_p50_ms": round(1e3 * statistics.median(seen.first), 2), "resident_bytes": [second, last],
        "memory_growth_percent": round(100 * (last / second - 1), 2),
        "passed": not (seen.wrong or unaccounted or seen.lost) and last <= 1.05 * second,
    }  # fmt: skip


def _adapters(base: Path, folder: Path) -> dict[str, list[Path]]:
    """Two versions of each expert, which say different things."""
    from tests.serve.test_llamacpp import adapter

    return {
        name: [adapter(base, folder / f"{name}-{turn}", 10 * place + turn) for turn in (0, 1)]
        for place, name in enumerate(EXPERTS)
    }


def _arrivals(chosen: argparse.Namespace) -> list[tuple[float, int]]:
    """(seconds, tokens to generate), at 6 requests a second on average; bursts as in the trace."""
    if chosen.data is None:
        chance = random.Random(1)
        gaps = [chance.expovariate(6.0) for _ in range(20_000)]
        return [(at, chance.randint(1, LONGEST)) for at in _summed(gaps)]
    with chosen.data.open() as file:
        rows = [
            (datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    rows.sort()
    scale = len(rows) / 6.0 / (rows[-1][0] - rows[0][0])
    longest = max(tokens for _, tokens in rows)
    return [((at - rows[0][0]) * scale, max(1, round(LONGEST * tokens / longest))) for at, tokens in rows]


def _summed(gaps: list[float]) -> Iterator[float]:
    at = 0.0
    for gap in gaps:
        at += gap
        yield at


async def _soak(
    port: int, pid: int, adapters: dict[str, list[Path]], arrivals: list[tuple[float, int]], seconds: float
) -> tuple[Seen, int, int]:
    seen, chance = Seen(), random.Random(0)
    url, done = f"http://127.0.0.1:{port}", Counter[str]()
    async with aiohttp.ClientSession(
        base_url=url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        wanted = await _references(session, adapters)
        began = time.perf_counter()
        sides = [
            asyncio.create_task(one)
            for one in (
                _swap(session, adapters, done, seen),
                _kill(pid, min(KILL_SECONDS, seconds / 3), done),
                _watch(pid, seen),
            )
        ]
        running: set[asyncio.Task[None]] = set()
        for at, tokens in arrivals:
            if at > seconds:
                break
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            task = asyncio.create_task(
                _client(
                    session,
                    seen,
                    wanted,
                    chance.choice(EXPERTS),
                    chance.choice(PROMPTS),
                    tokens,
                    chance.random() < LEAVES,
                )
            )
            running.add(task)
            task.add_done_callback(running.discard)
        for side in sides:
            side.cancel()
        await asyncio.gather(*running, *sides, return_exceptions=True)
    return seen, done["kill"], done["swap"]


def _body(expert: str, prompt: str, tokens: int) -> dict[str, Any]:
    message = [{"role": "user", "content": prompt}]
    return {
        "model": expert,
        "messages": message,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }


async def _put(session: aiohttp.ClientSession, name: str, path: Path) -> str:
    async with session.post("/admin/experts", json={"path": str(path), "name": name}) as answer:
        told = await answer.json()
        if answer.status != 200:
            raise RuntimeError(str(told))
        return str(told["version"])


async def _references(
    session: aiohttp.ClientSession, adapters: dict[str, list[Path]]
) -> dict[tuple[str, str], dict[str, str]]:
    """(version, prompt) -> the whole answer, asked one at a time."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for turn in (1, 0):
        for name, versions in adapters.items():
            version = await _put(session, name, versions[turn])
            for prompt in PROMPTS:
                async with session.post(
                    "/v1/chat/completions", json={**_body(name, prompt, LONGEST), "stream": False}
                ) as answer:
                    found[name, prompt] = {
                        **found.get((name, prompt), {}),
                        version: (await answer.json())["choices"][0]["message"]["content"],
                    }
    return found


async def _client(
    session: aiohttp.ClientSession,
    seen: Seen,
    wanted: dict[tuple[str, str], dict[str, str]],
    expert: str,
    prompt: str,
    tokens: int,
    leaves: bool,
) -> None:
    text, pieces, told, request, began = "", 0, {}, "", time.perf_counter()
    try:
        async with session.post("/v1/chat/completions", json=_body(expert, prompt, tokens)) as answer:
            request = answer.headers.get("x-genwright-request", "")
            if answer.status != 200:
                seen.counts[str(answer.status)] += 1
                if answer.status != 503 or "Retry-After" not in answer.headers:
                    seen.lost.append(f"{answer.status} {(await answer.text())[:200]}")
                return
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    seen.counts["ended early"] += 1
                    seen.left[request] = pieces
                    return
                told = event.get("genwright", told)
                piece = event["choices"][0]["delta"].get("content") if event.get("choices") else None
                if piece:
                    text, pieces = text + piece, pieces + 1
                    if pieces == 1:
                        seen.first.append(time.perf_counter() - began)
                if leaves and pieces == 2:
                    seen.counts["left"] += 1
                    seen.left[request] = pieces
                    return
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.lost.append(f"{type(error).__name__} {error}")
        return
    if "generated_tokens" not in told:
        seen.lost.append(f"{request} ended without its totals")
        return
    seen.counts["done"] += 1
    seen.told[request] = (told["prompt_tokens"], told["generated_tokens"])
    own = wanted[expert, prompt][told["version"]]
    if not _begins(own, text):
        others = {
            other: whole
            for (name, asked), by in wanted.items()
            if asked == prompt
            for other, whole in by.items()
            if other != told["version"]
        }
        if any(_begins(whole, text) for whole in others.values()):
            seen.wrong.append(f"{expert} {told['version']} {prompt!r}: {text!r}")
        else:
            seen.differs += 1


def _begins(whole: str, text: str) -> bool:
    return whole.startswith(text.rstrip("\ufffd"))


async def _swap(
    session: aiohttp.ClientSession, adapters: dict[str, list[Path]], done: Counter[str], seen: Seen
) -> None:
    """One that fails is told among what was lost."""
    while True:
        await asyncio.sleep(SWAP_SECONDS)
        name = EXPERTS[done["swap"] % len(EXPERTS)]
        try:
            await _put(session, name, adapters[name][1 - done["swap"] // len(EXPERTS) % 2])
        except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
            seen.lost.append(f"a swap: {error}")
        done["swap"] += 1


async def _kill(pid: int, every: float, done: Counter[str]) -> None:
    """SIGKILL to every engine process of the gateway."""
    while True:
        await asyncio.sleep(every)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"llamacpp_child" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        done["kill"] += 1


async def _watch(pid: int, seen: Seen) -> None:
    while True:
        await asyncio.sleep(1.0)
        seen.resident.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def _unaccounted(path: Path, seen: Seen) -> list[str]:
    """Requests whose row in the meter is missing or says other tokens than the client was told."""
    with sqlite3.connect(path) as database:
        rows = {
            row[0]: row[1:]
            for row in database.execute("SELECT id, outcome, prompt_tokens, generated_tokens FROM requests")
        }
    wrong = [
        f"{name}: told {told}, metered {rows.get(name)}"
        for name, told in seen.told.items()
        if rows.get(name, ())[1:] != told
    ]
    wrong += [
        f"{name}: saw {pieces}, metered {rows.get(name)}"
        for name, pieces in seen.left.items()
        if name not in rows or rows[name][2] < pieces
    ]
    return wrong


if __name__ == "__main__":
    gguf, base, folder = map(Path, sys.argv[1:4])
    uvloop.run(run_gateway(gguf, base, folder, int(sys.argv[4]), int(sys.argv[5])))
