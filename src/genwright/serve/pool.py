"""The engines of one server: the first answers, the others stand by. A dead one is started again; until then, 503.

down before the first token  ->  the next engine, or the same one once it is back (at most PATIENCE seconds, and MOST_LIVES times)
down after it                ->  told to the client in the stream; what was made is metered
nothing there                ->  EngineDown: 503 with Retry-After
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.serve.contracts import Chunk, Engine, EngineDown, EngineRefused, Expert, Kind

PATIENCE = 10.0
"""Seconds that a request which was accepted waits for its engine to come back."""

MOST_LIVES = 3
"""Of an engine that may end under one request: it may be the request that ends them."""

LOOK_SECONDS = 0.1
LONGEST_PAUSE = 10.0


class Pool:
    """Engines in order of preference."""

    def __init__(self, engines: Sequence[Engine], patience: float = PATIENCE) -> None:
        self.engines, self.patience = list(engines), patience
        self._watch: asyncio.Task | None = None
        self._adapters: dict[str, Expert] = {}
        self._pause: dict[int, float] = {}

    async def start(self) -> None:
        """Start all; one that does not start is tried again until `stop`. Errors: EngineDown when the first does not start now."""
        errors = [error for engine in self.engines if (error := await _failure(engine)) is not None]
        self._watch = asyncio.create_task(self._watching())
        if errors and not self.first.alive:
            raise EngineDown(str(errors[0]))

    async def stop(self) -> None:
        """End all."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        for engine in self.engines:
            await engine.stop()

    async def ready(self) -> bool:
        """Whether any can produce a first token."""
        for engine in self.engines:
            if await engine.ready():
                return True
        return False

    @property
    def first(self) -> Engine:
        """The preferred one."""
        return self.engines[0]

    async def load(self, expert: Expert) -> None:
        """Make an expert available at the first engine; the old version of its name stays until `unload`."""
        await self.first.load_adapter(expert.name, expert.path, expert.version)
        self._adapters[expert.served_name] = expert

    async def unload(self, expert: Expert) -> None:
        """Drop one version."""
        await self.first.unload(expert.name, expert.version)
        self._adapters.pop(expert.served_name, None)

    async def generate(
        self, kind: Kind, body: Mapping[str, Any], expert: Expert | None, retried: Callable[[Engine], None]
    ) -> AsyncIterator[tuple[Engine, Chunk]]:
        """Pieces with the engine that made them. An expert is only asked of the first engine. `retried`: told of each attempt that
        an engine took on and did not answer; asking one that is being started is none. Errors: EngineDown, EngineRefused.
        """
        clock = asyncio.get_running_loop().time
        until, ended = 0.0, set[int]()
        while True:
            error = EngineDown("no engine is running")
            for engine in self.engines if expert is None else self.engines[:1]:
                stream, begun, under_it = engine.generate(kind, body, expert), False, engine.ours and engine.alive
                try:
                    async for chunk in stream:
                        begun = True
                        yield engine, chunk
                    return
                except EngineDown as down:
                    if begun:
                        raise
                    error = down
                    if under_it and engine.restarts not in ended:
                        ended.add(engine.restarts)
                        until = clock() + self.patience
                    if under_it or not engine.ours:
                        retried(engine)
                finally:
                    await stream.aclose()  # type: ignore[attr-defined]
            if not ended or len(ended) >= MOST_LIVES or clock() > until:
                raise error
            await asyncio.sleep(LOOK_SECONDS)

    async def embed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Vectors, from the first engine that has them. Errors: EngineDown, EngineRefused."""
        error: EngineDown | EngineRefused = EngineDown("no engine is running")
        for engine in self.engines:
            try:
                return await engine.embed(body)
            except (EngineDown, EngineRefused) as told:
                error = told
        raise error

    async def _watching(self) -> None:
        """Start again what has died, with pauses that grow while it keeps dying."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number, engine in enumerate(self.engines):
                if not engine.alive:
                    await self._revive(number, engine)

    async def _revive(self, number: int, engine: Any) -> None:
        engine.restarts += 1
        if await _failure(engine) is None:
            self._pause[number] = LOOK_SECONDS
            return
        pause = self._pause[number] = min(LONGEST_PAUSE, 2 * self._pause.get(number, LOOK_SECONDS))
        await asyncio.sleep(pause)


async def _failure(engine: Engine) -> Exception | None:
    """Why it does not start."""
    try:
        await engine.start()
    except (EngineDown, EngineRefused, GenwrightError, OSError) as error:
        return error
    return None
