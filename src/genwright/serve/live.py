"""Experts that come and go while requests run.

    what the library names -> past its gate -> loaded by the engine -> seen by new requests -> learnt by the router -> old versions let go

A version is unloaded only when the last request that holds it has ended, and a request holds its version from the moment it
is admitted: nothing that was accepted meets an engine without its expert.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from genwright.base.errors import GenwrightError
from genwright.serve.contracts import EngineDown, EngineRefused, Expert, Library, Request, Route, Router
from genwright.serve.pool import Pool

LOOK_SECONDS = 1.0
"""Between two looks at the library's index."""


class Holders:
    """How many requests hold each version, and who waits for the last of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def hold(self, served_name: str) -> None:
        """One request more."""
        self._counts[served_name] += 1

    def let_go(self, served_name: str) -> None:
        """One request less."""
        self._counts[served_name] -= 1
        if self._counts[served_name] <= 0:
            del self._counts[served_name]
            for waiting in self._waiting.pop(served_name, []):
                if not waiting.done():
                    waiting.set_result(None)

    def count(self, served_name: str) -> int:
        """Requests that hold it now."""
        return self._counts[served_name]

    async def free(self, served_name: str) -> None:
        """Return when nobody holds it."""
        while self._counts[served_name]:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(served_name, []).append(waiting)
            await waiting


class Learner(Protocol):
    """A router that can be told its experts anew."""

    def __call__(self, experts: Sequence[Expert]) -> None:
        """May be slow: it is called in a thread."""
        ...


class LiveLibrary:
    """A library as requests see it: what the engine has loaded.

    `own`: the project's adapter, which answers while the library on disk is empty; `own_name`: its name in the library. `prepare`
    gives an expert as the engine takes it, or raises EngineRefused; `prove` looks at one that the engine has, and raises it too.
    """

    def __init__(
        self, source: Library | None, pool: Pool, holders: Holders, own: Expert | None = None, *, own_name: str = "",
        prepare: Callable[[Expert], Awaitable[Expert]] | None = None, prove: Callable[[Expert], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self.source, self.pool, self.holders, self.own = source, pool, holders, own
        self.own_name = own_name or (own.name if own is not None else "")
        self.prepare, self.prove = prepare, prove
        self.learn: Learner | None = None
        self.refused: dict[str, str] = {}
        """Served name -> why the engine does not take it."""
        self._seen: dict[str, Expert] = {}
        self._changing = asyncio.Lock()
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def experts(self) -> tuple[Expert, ...]:
        """Loaded ones, by name."""
        return tuple(self._seen[name] for name in sorted(self._seen))

    def get(self, name: str) -> Expert | None:
        """The version that new requests get."""
        return self._seen.get(name)

    def add(self, path: Path, name: str = "") -> Expert:
        """Into the library on disk; `refresh` loads it. Errors: GenwrightError for what is no adapter of this base."""
        return self._source().add(path, name)

    def remove(self, name: str) -> None:
        """From the library on disk; `refresh` lets it go. Errors: UnknownName."""
        self._source().remove(name)

    def _source(self) -> Library:
        if self.source is None:
            raise GenwrightError(
                "This server has no library of experts: its result is merged into the base, or runs elsewhere.",
                do="set integrate.merge = false",
            )
        return self.source

    def wanted(self) -> dict[str, Expert]:
        """What the library on disk names now, else our own."""
        named = {expert.name: expert for expert in self.source.experts()} if self.source is not None else {}
        return named or ({self.own.name: self.own} if self.own is not None else {})

    async def refresh(self) -> None:
        """Make what is seen what is wanted. Errors: GenwrightError for a damaged index; what an engine refuses is in `refused`."""
        async with self._changing:
            wanted = await asyncio.to_thread(self.wanted)
            now = {name: await self._loaded(expert) for name, expert in wanted.items()}
            before, self._seen = self._seen, {name: expert for name, expert in now.items() if expert is not None}
            if _versions(before) == _versions(self._seen):
                return
            if self.learn is not None:
                await asyncio.to_thread(self.learn, self.experts())
            for expert in before.values():
                if expert.served_name not in _versions(self._seen):
                    self._leaving[expert.served_name] = asyncio.create_task(self._leave(expert))

    async def _loaded(self, expert: Expert) -> Expert | None:
        """It, once the engine has it; where the engine refuses it, the version that was seen before."""
        before = self._seen.get(expert.name)
        if before == expert or expert.served_name in self.refused:
            return before
        if (leaving := self._leaving.pop(expert.served_name, None)) is not None:
            leaving.cancel()
        try:
            await self.pool.load(await self.prepare(expert) if self.prepare is not None else expert)
            await self._proven(expert)
        except (EngineRefused, GenwrightError) as error:
            self.refused[expert.served_name] = str(error)
            return before
        except EngineDown:
            return before
        return expert

    async def _proven(self, expert: Expert) -> None:
        if self.prove is None:
            return
        try:
            await self.prove(expert)
        except (EngineRefused, EngineDown):
            with contextlib.suppress(EngineDown, EngineRefused):
                await self.pool.unload(expert)
            raise

    async def _leave(self, expert: Expert) -> None:
        await self.holders.free(expert.served_name)
        with contextlib.suppress(EngineDown, EngineRefused):
            await self.pool.unload(expert)
        self._leaving.pop(expert.served_name, None)

    async def watch(self) -> None:
        """Follow changes that other processes make."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(GenwrightError):
                if _versions(await asyncio.to_thread(self.wanted)) - self.refused.keys() != _versions(self._seen):
                    await self.refresh()

    async def stop(self) -> None:
        """Wait for nobody any more."""
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)


class LiveRouter:
    """The router of a live library: our own expert answers everything while it is the only one.

    `say` is told once why questions cannot be routed, where the router cannot be made; experts answer by name all the same.
    """

    def __init__(
        self, library: LiveLibrary, make: Callable[[], tuple[Router, Learner]] | None = None, say: Callable[[str], Any] = print
    ) -> None:  # fmt: skip
        self.library, self.make, self.say = library, make, say
        self.router: Router | None = None
        library.learn = self.learn

    def learn(self, experts: Sequence[Expert]) -> None:
        """Tell the router, which is made when it is first needed."""
        if self.make is None or not experts or self._alone(experts):
            return
        try:
            if self.router is None:
                self.router, self._tell = self.make()
            self._tell(experts)
        except GenwrightError as error:
            self.say(f"questions to auto go to the base, experts answer by name only: {error}")
            self.make = None

    def route(self, request: Request, held: str | None) -> Route:
        """See contracts.Router."""
        experts = self.library.experts()
        if self._alone(experts):
            return Route(self.library.own_name, reason="only-one")
        if not experts:
            return Route(None, reason="only-one")
        return self.router.route(request, held) if self.router is not None else Route(None, reason="nothing-fits")

    def _alone(self, experts: Sequence[Expert]) -> bool:
        return [one.name for one in experts] == [self.library.own_name]


def _versions(experts: dict[str, Expert]) -> set[str]:
    return {expert.served_name for expert in experts.values()}
