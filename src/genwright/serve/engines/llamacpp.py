"""llama.cpp in a child process: the embedded default. Adapters are given at start, and a request names the one it wants.

A new adapter means a new process: it is started and warmed while the old one answers, then requests go to the new one,
and the old one ends with its last request. So no request is dropped, and no cached prefix can cross versions.

Vectors of texts come from a process of their own, started with the first text: llama.cpp does one or the other. They are the
base's last hidden state at the last token, the one that has seen all others, of length 1. (A mean would be over those tokens only
that no earlier text left in the slot's cache, which llama.cpp keeps for vectors too.)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genwright.base.errors import MissingExtra
from genwright.serve.contracts import Chunk, EngineDown, EngineMetrics, EngineRefused, Expert, Kind, Usage
from genwright.serve.engines.child import Child
from genwright.serve.engines.http import HttpEngine
from genwright.serve.engines.processes import CpuTime, resident_bytes
from genwright.serve.engines.pulse import Pulse

CHILD = "genwright.serve.engines.llamacpp_child"
EXPORT = "genwright.export.gguf"


@dataclass(frozen=True)
class LlamaSettings:
    """How the process runs."""

    gguf: Path
    work: Path
    """Where converted adapters and the log go."""
    base: Path | None = None
    """The model folder that the GGUF was made of: adapters are converted by its sizes."""
    begin: str = ""
    """What a plain completion begins with, as training had it."""
    context: int = 2048
    """Tokens of one request, prompt and answer."""
    parallel: int = 4
    """Requests at a time; more wait."""
    threads: int = 0
    """0: every core."""
    gpu_layers: int = 0
    exact: bool = False
    """Keys, values and attention in float32 where llama.cpp halves them: for proofs, which then leave nothing to rounding."""


@dataclass
class Generation:
    """One process with the adapters that it was started with."""

    child: Child
    client: HttpEngine
    adapters: tuple[str, ...]
    pulse: Pulse
    watching: asyncio.Task[None]
    warm: bool = False
    busy: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class LlamaClient(HttpEngine):
    """llama.cpp's dialect of HTTP. It says Keep-Alive and closes after a stream: a kept connection would fail at the next request."""

    name = "llamacpp"
    ours = True
    keeps_connections = False

    def _so_far(self, data: Mapping[str, Any]) -> Usage | None:
        """`timings_per_token` tells in every chunk what was computed and what was cached."""
        timings = data.get("timings")
        if not isinstance(timings, dict):
            return super()._so_far(data)
        cached = int(timings.get("cache_n") or 0)
        return Usage(int(timings.get("prompt_n") or 0) + cached, cached, int(timings.get("predicted_n") or 0))


class LlamaCpp:
    """The engine: the newest generation answers."""

    name = "llamacpp"
    ours = True

    def __init__(self, model: str, settings: LlamaSettings) -> None:
        self.model, self.settings = model, settings
        self.restarts = 0
        self._adapters: dict[str, Path] = {}
        self._now: Generation | None = None
        self._embedder: Generation | None = None
        self._running: list[Generation] = []
        self._draining: set[asyncio.Task] = set()
        self._changing = asyncio.Lock()
        self._cpu = CpuTime()

    async def start(self) -> None:
        """Start, or start again after a death. Errors: EngineDown, MissingExtra."""
        if find_spec("xllamacpp") is None:
            raise MissingExtra("xllamacpp", "serve", "The engine llamacpp")
        async with self._changing:
            if self._now is not None and self._now.child.alive:
                return
            dead, self._now = self._now, await self._generation()
            if dead is not None:
                await self._end(dead)

    async def stop(self) -> None:
        """End every process of ours."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        for generation in list(self._running):
            await self._end(generation)
        self._now = self._embedder = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._now is not None and self._now.child.alive

    @property
    def pid(self) -> int | None:
        """Of the process that answers now."""
        process = self._now.child.process if self._now is not None else None
        return process.pid if process is not None else None

    async def ready(self) -> bool:
        """Whether one token was produced by the process that answers now, and it does not hang."""
        now = self._now
        if now is None or not now.child.alive:
            return False
        if not now.warm:
            await self._warm(now)
        return now.warm and now.pulse.well

    async def generate(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None) -> AsyncIterator[Chunk]:
        """See contracts.Engine."""
        now = self._answering()
        told = self._dialect(kind, body, expert, now)
        now.busy += 1
        now.idle.clear()
        stream = now.client.generate(kind, told, None)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
            now.busy -= 1
            if not now.busy:
                now.idle.set()

    async def embed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Vectors of texts. Errors: EngineRefused, EngineDown."""
        async with self._changing:
            if self._embedder is None or not self._embedder.child.alive:
                dead, self._embedder = self._embedder, await self._generation(embedding=True)
                if dead is not None:
                    await self._end(dead)
            embedder = self._embedder
        return await embedder.client.embed(body)

    async def ask(self, path: str, body: Mapping[str, Any], expert: Expert | None = None) -> dict[str, Any]:
        """A call in llama.cpp's own words: tokens in, tokens out, for the parity gate. Errors: EngineDown, EngineRefused."""
        now = self._answering()
        return await now.client.ask(path, self._dialect("chat", body, expert, now))

    async def load_adapter(self, name: str, path: Path, version: str) -> None:
        """Convert it, then change generations, unless the process that answers has it, or nothing runs yet."""
        served = f"{name}@{version}"
        if served in self._adapters:
            return
        before, self._adapters = self._adapters, {**self._adapters, served: await self._converted(served, path)}
        try:
            try:
                await self._change(served)
            except EngineDown:  # of a process that was killed while it started: that says nothing of the adapter
                await self._change(served)
        except EngineDown as error:
            self._adapters = before
            raise EngineRefused(f"llama.cpp does not start with {served}: {error}", 409) from None

    async def unload(self, name: str, version: str) -> None:
        """Forget it; its weights go with the process, when the next adapter comes."""
        self._adapters = {key: value for key, value in self._adapters.items() if key != f"{name}@{version}"}

    async def cancel(self, request_id: str) -> None:
        """Closing a request's iterator closes its connection, which frees its slot."""

    async def metrics(self) -> EngineMetrics:
        """What the process holds."""
        now = self._now
        if now is None:
            return EngineMetrics(restarts=self.restarts)
        return EngineMetrics(
            running=now.busy,
            adapters=tuple(name for name in now.adapters if name in self._adapters),
            memory_bytes=resident_bytes(self.pid),
            restarts=self.restarts,
        )

    def cpu_seconds(self) -> float:
        """Of every process that it had."""
        return self._cpu.of(one.child.process.pid for one in self._running if one.child.process is not None)

    def _answering(self) -> Generation:
        if self._now is None or not self._now.child.alive:
            raise EngineDown("llama.cpp is being started again")
        return self._now

    def _dialect(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None, now: Generation) -> dict[str, Any]:
        """Adapters by number, the base by none; greedy is greedy; a completion begins as training's texts did."""
        told = dict(body)
        told["lora"] = [{"id": number, "scale": 0.0} for number in range(len(now.adapters))]
        if expert is not None:
            if expert.served_name not in now.adapters:
                raise EngineDown(f"the expert {expert.name} is being loaded", retry_after=2.0)
            told["lora"][now.adapters.index(expert.served_name)]["scale"] = 1.0
        if told.get("stream"):
            told["timings_per_token"] = True
        if kind == "completion" and self.settings.begin and isinstance(told.get("prompt"), str):
            told["prompt"] = self.settings.begin + told["prompt"]
        return told

    async def _change(self, served: str) -> None:
        """Start the next generation, switch, and let the old one finish. Nothing to do before the first, or where it has the adapter."""
        async with self._changing:
            if self._now is None or served in self._now.adapters:
                return
            old, self._now = self._now, await self._generation()
            task = asyncio.create_task(self._drain(old))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _generation(self, *, embedding: bool = False) -> Generation:
        settings, names = self.settings, () if embedding else tuple(self._adapters)
        told = {
            "model": str(settings.gguf), "alias": self.model, "context": settings.context, "parallel": settings.parallel,
            "threads": settings.threads or os.cpu_count() or 1, "gpu_layers": settings.gpu_layers,
            "embedding": embedding, "exact": settings.exact, "adapters": [str(self._adapters[name]) for name in names],
        }  # fmt: skip
        child = Child([sys.executable, "-m", CHILD, json.dumps(told)], settings.work / "llamacpp.log")
        client = LlamaClient(self.model, (await child.start())["url"])
        pulse = Pulse(child, client)
        generation = Generation(child, client, names, pulse, asyncio.create_task(pulse.watch()), warm=embedding)
        self._running.append(generation)
        if not embedding:
            await self._warm(generation)
        return generation

    async def _drain(self, old: Generation) -> None:
        """Wait for the last request, then end the process."""
        try:
            if old.busy and old.child.alive:
                await old.idle.wait()
        finally:
            await self._end(old)

    async def _end(self, generation: Generation) -> None:
        generation.watching.cancel()
        await generation.client.stop()
        await generation.child.stop()
        self._running = [one for one in self._running if one is not generation]

    async def _warm(self, generation: Generation) -> None:
        """One token of the base: the proof that the first token can be produced."""
        body = {"prompt": self.settings.begin or "a", "max_tokens": 1}
        try:
            async for _ in generation.client.generate("completion", body, None):
                generation.warm = True
        except (EngineRefused, EngineDown):
            generation.warm = False

    async def _converted(self, served: str, path: Path) -> Path:
        """The adapter as GGUF, by a process that may load what we may not. Errors: EngineRefused in its words."""
        if path.suffix == ".gguf":
            return path
        out = self.settings.work / "adapters" / f"{served}.gguf"
        if out.exists():
            return out
        if self.settings.base is None:
            raise EngineRefused("an adapter needs the base's folder to be converted")
        out.parent.mkdir(parents=True, exist_ok=True)
        partly = out.with_suffix(f".{os.getpid()}.partly")
        command = [sys.executable, "-m", EXPORT, "adapter", str(self.settings.base), str(path), str(partly)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        told, _ = await process.communicate()
        if process.returncode:
            partly.unlink(missing_ok=True)
            raise EngineRefused(json.loads(told or b"{}").get("error", f"{path} could not be converted"))
        partly.replace(out)
        return out
