"""What every engine speaks: OpenAI's HTTP interface, streamed or whole, with its tokens counted while they come.

An engine of ours differs from another's in three small things, which its subclass says: how an expert is named in the
body (`_body`), how tokens so far are told in a chunk (`_so_far`), and where it is (`address`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from genwright.serve.contracts import Chunk, EngineDown, EngineMetrics, EngineRefused, Expert, Kind, Usage

if TYPE_CHECKING:
    import aiohttp  # a quarter of a gateway's start: it is loaded with the first connection

HEALTH_SECONDS = 2.0
"""In which an engine that lives says so."""

SILENT_SECONDS = 900.0
"""After which an engine that runs elsewhere, and says nothing, is taken for gone. Ours are watched (`pulse`)."""

PATHS: dict[str, str] = {"chat": "/v1/chat/completions", "completion": "/v1/completions", "embedding": "/v1/embeddings"}

LONGEST_LINE = 2**22
"""Bytes of one event; an engine that sends more is broken."""


@cache
def stale() -> tuple[type[Exception], ...]:
    """A kept connection that the other side had closed: nothing was answered on it, so it is asked once more on another."""
    import aiohttp

    return aiohttp.ServerDisconnectedError, aiohttp.ClientOSError


@cache
def gone() -> tuple[type[Exception], ...]:
    """Nobody is there, or no longer."""
    import aiohttp

    return aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, asyncio.IncompleteReadError


class HttpEngine:
    """An engine at an address."""

    name = "remote"
    ours = False
    keeps_connections = True
    """Whether a connection serves more than one request."""

    def __init__(self, model: str, address: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.model, self.address, self.headers = model, address.rstrip("/"), dict(headers or {})
        self.running = self.restarts = 0
        self.waiting = 0
        """Requests that wait for the engine to say something: a client that does not read its answer is none of them."""
        self.pieces = 0
        """Of all answers so far."""
        self._session: aiohttp.ClientSession | None = None

    @property
    def alive(self) -> bool:
        """What is not ours cannot be started again."""
        return True

    async def start(self) -> None:
        """Nothing to start: it runs elsewhere."""

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ready(self) -> bool:
        """Whether it lists its models."""
        try:
            async with self._call("GET", "/v1/models", timeout=2.0) as answer:
                return answer.status == 200
        except EngineDown:
            return False

    async def generate(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None) -> AsyncIterator[Chunk]:
        """The answer in pieces, or one piece; see contracts.Engine."""
        wanted = self._body(kind, body, expert)
        self.running += 1
        self.waiting += 1
        try:
            async with self._call("POST", PATHS[kind], body=wanted) as answer:
                await refused(answer)
                pieces = self._stream(answer) if wanted.get("stream") else self._single(answer)
                async for chunk in pieces:
                    self.pieces += 1
                    self.waiting -= 1
                    try:
                        yield chunk
                    finally:
                        self.waiting += 1
        finally:
            self.waiting -= 1
            self.running -= 1

    async def embed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Vectors of texts."""
        self.waiting += 1
        try:
            async with self._call("POST", PATHS["embedding"], body=self._body("embedding", body, None)) as answer:
                await refused(answer)
                return await _json(answer)
        finally:
            self.pieces += 1
            self.waiting -= 1

    async def answers(self) -> bool:
        """Whether anybody is there, ready or not."""
        try:
            async with self._call("GET", "/health", timeout=HEALTH_SECONDS):
                return True
        except EngineDown:
            return False

    def cpu_seconds(self) -> float:
        """Nothing here is used by what runs elsewhere."""
        return 0.0

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One call to a path of the engine's own. Errors: EngineDown, EngineRefused."""
        async with self._call("POST", path, body=body) as answer:
            await refused(answer)
            return await _json(answer)

    async def load_adapter(self, name: str, path: Any, version: str) -> None:
        """A model that runs elsewhere takes no adapters of ours. Errors: EngineRefused."""
        raise EngineRefused(f"{self.address} takes no adapters", 501)

    async def unload(self, name: str, version: str) -> None:
        """Nothing was loaded."""

    async def cancel(self, request_id: str) -> None:
        """A request ends when its iterator is closed: closing the connection tells the engine."""

    async def metrics(self) -> EngineMetrics:
        """What is known from here."""
        return EngineMetrics(running=self.running, restarts=self.restarts)

    def _body(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None) -> dict[str, Any]:
        """The client's body, with this engine's name of the model; a stream always ends with its usage."""
        told = {**body, "model": self.model}
        if told.get("stream"):
            told["stream_options"] = {"include_usage": True}
        return told

    def _so_far(self, data: Mapping[str, Any]) -> Usage | None:
        """Totals that a chunk tells."""
        return usage_of(data)

    async def _single(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Chunk]:
        yield _whole(await _json(answer))

    async def _stream(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Chunk]:
        finished = False
        async for data in events_of(answer):
            if data is None:
                finished = True
                break
            if "error" in data:
                raise EngineDown(str(data["error"]))
            text, tokens = _delta(data)
            yield Chunk(data, text, tokens, self._so_far(data))
        if not finished:
            raise EngineDown("the engine ended its answer in the middle")

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, body: Any = None, timeout: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; everything that means "it is not there" is EngineDown."""
        import aiohttp

        silence = None if self.ours else SILENT_SECONDS
        session, limits = self._connections(), aiohttp.ClientTimeout(timeout, sock_connect=5, sock_read=silence)
        begin = lambda: session.request(
            method, f"{self.address}{path}", json=body, headers=self.headers, timeout=limits
        )
        try:
            try:
                answer = await begin()
            except stale() as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                answer = await begin()
            async with answer:
                yield answer
        except gone() as error:
            raise EngineDown(f"{self.name} at {self.address} does not answer: {type(error).__name__}") from error
        except TimeoutError as error:
            raise EngineDown(f"{self.name} at {self.address} did not answer in time") from error

    def _connections(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            kept: dict[str, Any] = {"keepalive_timeout": 30} if self.keeps_connections else {"force_close": True}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, **kept), read_bufsize=LONGEST_LINE, auto_decompress=True
            )
        return self._session


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any] | None]:
    """Server-sent events as JSON; None is [DONE]. An event may arrive in any number of pieces."""
    left = b""
    async for piece in answer.content.iter_any():
        left += piece
        *lines, left = left.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                text = line[5:].strip()
                yield None if text == b"[DONE]" else _event(text)
            elif line.startswith(b"error:"):
                yield {"error": line[6:].decode("utf-8", "replace").strip()}


def _event(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {"error": "an event that is not JSON"}


async def _json(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        return dict(json.loads(await answer.read()))
    except (ValueError, TypeError):
        raise EngineDown("the engine's answer is not JSON") from None


async def refused(answer: aiohttp.ClientResponse) -> None:
    """Errors: EngineRefused with the engine's own words for a 4xx, EngineDown for a 5xx."""
    if answer.status < 400:
        return
    text = (await answer.read()).decode("utf-8", "replace")
    words = _words(text)
    if answer.status in (408, 429):
        raise EngineDown(words, retry_after=float(answer.headers.get("Retry-After", 1) or 1))
    if answer.status >= 500 and answer.status != 501 and not is_the_clients_fault(words):
        raise EngineDown(words)
    raise EngineRefused(words, 400 if answer.status == 500 else answer.status)


def is_the_clients_fault(words: str) -> bool:
    """llama.cpp answers 500 to what its JSON reader, its schema reader or a template refuses in a request."""
    return any(
        part in words
        for part in ("json.exception", "parse error", "Failed to parse", "JSON schema", "template", "Jinja")
    )


def _words(text: str) -> str:
    try:
        told = json.loads(text)
    except ValueError:
        return text[:500]
    error = told.get("error", told) if isinstance(told, dict) else told
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]


def _whole(data: dict[str, Any]) -> Chunk:
    usage = usage_of(data)
    choice = (data.get("choices") or [{}])[0]
    text = choice.get("text") if "text" in choice else (choice.get("message") or {}).get("content")
    return Chunk(data, str(text or ""), usage.generated if usage else 0, usage, _decode_seconds(data))


def _decode_seconds(data: Mapping[str, Any]) -> float | None:
    """As llama.cpp tells it (`timings`), or vLLM (`metrics`)."""
    for field, name in (("timings", "predicted_ms"), ("metrics", "generation_time_ms")):
        told = data.get(field)
        if isinstance(told, dict) and isinstance(told.get(name), int | float):
            return float(told[name]) / 1e3
    return None


def _delta(data: Mapping[str, Any]) -> tuple[str, int]:
    """(text, tokens) of a piece; a piece with text, thought or part of a tool call is counted as one token."""
    choices = data.get("choices") or []
    delta = (choices[0].get("delta") or {}) if choices else {}
    text = str((choices[0].get("text") if choices else "") or delta.get("content") or "")
    counts = bool(text or delta.get("tool_calls") or delta.get("reasoning_content"))
    return text, int(counts)


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """OpenAI's `usage`, cached tokens included in the prompt's; None where it is not told."""
    told = data.get("usage")
    if not isinstance(told, dict):
        return None
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(int(told.get("prompt_tokens") or 0), int(cached), int(told.get("completion_tokens") or 0))
