"""The HTTP surface: OpenAI's paths over Answers. No torch is loaded, and nothing here waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route as Path

from genwright.serve import checks
from genwright.serve.admin import admin_routes
from genwright.serve.answers import Answers, Run, Thought, conversation_id
from genwright.serve.contracts import (
    AUTO,
    BASE,
    Chunk,
    Decision,
    EngineDown,
    EngineRefused,
    Kind,
    Profile,
    Request,
    Route,
)
from genwright.serve.engines.http import usage_of
from genwright.serve.failures import HANDLERS
from genwright.serve.keys import Key, Keys, shown
from genwright.serve.live import LiveLibrary
from genwright.serve.openapi import document
from genwright.serve.prometheus import exposition
from genwright.serve.replies import Refusal
from genwright.serve.windows import released

BODY_SECONDS = 30.0
"""In which a body must have arrived."""

MOST_RUNNING = 1024
"""Requests at a time; more are told to come back."""

PAGE_RULES = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"

T = TypeVar("T")


class Gateway:
    """The endpoints. Lives as long as the server."""

    def __init__(self, answers: Answers, keys: Keys | None = None, *, always_keys: bool = False) -> None:
        self.answers, self.keys, self.always_keys = answers, keys, always_keys
        self.parts = answers.parts

    async def chat(self, http: Http) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer("chat", http)

    async def completion(self, http: Http) -> Response:
        """POST /v1/completions."""
        return await self._answer("completion", http)

    async def embeddings(self, http: Http) -> Response:
        """POST /v1/embeddings: the engine's vectors, metered as prompt tokens."""
        key = self._key(http)
        asked = checks.check("embedding", checks.read_json(await _body(http)), self.parts.context)
        request = Request("embedding", asked.model, asked.messages, key.name if key else "", "", asked.params)
        if asked.model not in (AUTO, BASE, self.parts.model):
            raise Refusal(
                404, f"There is no model '{asked.model[:80]}' for embeddings.", param="model", code="model_not_found"
            )
        run = self.answers.begin(Thought(request, Route(None, reason="named"), None, Profile(), Decision()), key)
        run.engine = self.parts.pool.first
        body = {**asked.params, "model": asked.model}
        try:
            told = await _until_gone(http, lambda: self.parts.pool.embed(body))
            run.count(Chunk(told, usage=usage_of(told)))
        except BaseException as error:
            _close_with(run, error)
            raise
        run.close("done")
        return JSONResponse({**told, "model": self.parts.model, "genwright": run.told()}, headers=run.headers())

    async def models(self, http: Http) -> Response:
        """GET /v1/models and /v1/models/{name}: auto, the base, every expert that the key may use."""
        key = self._key(http)
        experts = self.parts.library.experts() if self.parts.library is not None else ()
        allowed = [expert for expert in experts if key is None or key.experts is None or expert.name in key.experts]
        told = [
            {"id": name, "object": "model", "created": 0, "owned_by": "genwright"} for name in (AUTO, self.parts.model)
        ]
        told += [
            {"id": one.name, "object": "model", "created": 0, "owned_by": "genwright", "version": one.version, "root": self.parts.model}
            for one in allowed
        ]  # fmt: skip
        name = http.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": told})
        for one in told:
            if one["id"] == name:
                return JSONResponse(one)
        raise Refusal(404, f"There is no model '{str(name)[:80]}'.", param="model", code="model_not_found")

    async def health(self, http: Http) -> Response:
        """GET /health: the gateway itself lives."""
        return JSONResponse({"status": "ok", "running": self.answers.running})

    async def ready(self, http: Http) -> Response:
        """GET /ready: 200 when the first token can be produced."""
        if await self.parts.pool.ready():
            return JSONResponse({"status": "ready", "model": self.parts.model})
        raise Refusal(503, "The engine is being started.", code="not_ready", retry_after=1)

    async def metrics(self, http: Http) -> Response:
        """GET /metrics, for Prometheus."""
        told = [(engine.name, await engine.metrics(), engine.alive) for engine in self.parts.pool.engines]
        text = exposition(self.answers, told)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, http: Http) -> Response:
        """GET /openapi.json."""
        return JSONResponse(document())

    async def page(self, http: Http) -> Response:
        """GET /: a page to talk to it."""
        text = importlib.resources.files("genwright.serve").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_RULES, "X-Content-Type-Options": "nosniff"})

    async def _answer(self, kind: Kind, http: Http) -> Response:
        key = self._key(http)
        asked = checks.check(kind, checks.read_json(await _body(http)), self.parts.context)
        if self.answers.running >= MOST_RUNNING:
            raise Refusal(503, "Too many requests are running.", code="overloaded", retry_after=1)
        told = http.headers.get("x-genwright-conversation", "")[:128]
        name = conversation_id(told, asked.messages)
        request = Request(kind, asked.model, asked.messages, key.name if key else "", name, asked.params)
        run = self.answers.begin(await self.answers.think(request, key), key)
        try:
            if run.is_safe_reply:
                return _safe_reply(run)
            chunks = released(run, run.chunks())
            if run.streams:
                first = await _until_gone(http, lambda: _first(chunks))
                return Stream(run, first, chunks)
            return await _until_gone(http, lambda: _whole(run, chunks))
        except BaseException as error:
            _close_with(run, error)
            raise

    def _key(self, http: Http) -> Key | None:
        """Who asks. Errors: Refusal 401 where keys are asked for and none that fits is shown."""
        if self.keys is None or not (self.always_keys or self.keys.all()):
            return None
        key = self.keys.who(shown(http.headers.get("authorization", "")))
        if key is None:
            raise Refusal(401, "An API key is needed: Authorization: Bearer gw-...", code="invalid_api_key")
        return key


class Stream(StreamingResponse):
    """Server-sent events of one run. However it ends, the engine's stream is closed and the record written."""

    def __init__(self, run: Run, first: Chunk | None, chunks: AsyncIterator[Chunk]) -> None:
        self.run, self.chunks = run, chunks
        headers = {**run.headers(), "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        self.events = self._events(first)
        super().__init__(self.events, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send, and clean up after a client that has left too."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._end())

    async def _end(self) -> None:
        await self.events.aclose()
        await self.chunks.aclose()  # type: ignore[attr-defined]
        self.run.close("cancelled", 499)

    async def _events(self, first: Chunk | None) -> AsyncGenerator[bytes, None]:
        run, told = self.run, self.run.told()
        wants_usage = (run.thought.request.params.get("stream_options") or {}).get("include_usage")
        try:
            if first is not None:
                yield _event({**_cleaned(first, run), "genwright": told})
            async for chunk in self.chunks:
                if chunk.data.get("choices"):
                    yield _event(_cleaned(chunk, run))
        except (EngineDown, EngineRefused) as error:
            run.close("failed", 502)
            yield _event(Refusal(502, f"The answer ended early: {error}", code="engine_failed").body())
            yield b"data: [DONE]\n\n"
            return
        run.close("done")
        last = {
            "object": _OBJECTS[run.thought.request.kind],
            "id": run.id,
            "model": _name(run),
            "created": int(run.began),
        }
        usage = {"usage": _usage(run)} if wants_usage else {}
        yield _event({**last, "choices": [], **usage, "genwright": run.told()})
        yield b"data: [DONE]\n\n"


_OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}


async def _first(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    async for chunk in chunks:
        return chunk
    return None


async def _whole(run: Run, chunks: AsyncIterator[Chunk]) -> Response:
    """An answer that is not streamed."""
    chunk = await _first(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    run.close("done")
    body = _cleaned(chunk, run) if chunk is not None else {"choices": []}
    return JSONResponse({**body, "genwright": run.told()}, headers=run.headers())


def _cleaned(chunk: Chunk, run: Run) -> dict[str, Any]:
    """OpenAI's fields, without the engine's own; the model is who answered."""
    told = dict(chunk.data)
    for name in _ENGINES_OWN:
        told.pop(name, None)
    if run.streams:
        told.pop("usage", None)
    told["model"] = _name(run)
    return told


_ENGINES_OWN = ("timings", "metrics", "__verbose", "prompt_progress")


def _name(run: Run) -> str:
    return run.thought.expert.name if run.thought.expert is not None else run.parts.model


def _usage(run: Run) -> dict[str, Any]:
    prompt, generated = run.usage.prompt, run.generated
    return {
        "prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": run.usage.cached},
    }  # fmt: skip


def _safe_reply(run: Run) -> Response:
    """The guard's answer, in the shape of an answer: no engine ran, no token was made."""
    text, kind = run.thought.decision.text, run.thought.request.kind
    run.close("blocked")
    base = {"id": run.id, "created": int(run.began), "model": _name(run)}
    if run.streams:
        delta = {"delta": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
        events = [
            {**base, "object": _OBJECTS[kind], "choices": [{"index": 0, **delta, "finish_reason": "content_filter"}]},
            {**base, "object": _OBJECTS[kind], "choices": [], "usage": _usage(run), "genwright": run.told()},
        ]
        data = b"".join(map(_event, events)) + b"data: [DONE]\n\n"
        return Response(data, media_type="text/event-stream", headers=run.headers())
    content = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
    choice = {"index": 0, **content, "finish_reason": "content_filter"}
    shape = "chat.completion" if kind == "chat" else "text_completion"
    told = {**base, "object": shape, "choices": [choice], "usage": _usage(run), "genwright": run.told()}
    return JSONResponse(told, headers=run.headers())


def _close_with(run: Run, error: BaseException) -> None:
    """The record of a request that ended badly."""
    if isinstance(error, EngineRefused):
        run.close("refused", error.status)
    elif isinstance(error, (ClientDisconnect, asyncio.CancelledError)):
        run.close("cancelled", 499)
    else:
        run.close("failed", 503 if isinstance(error, EngineDown) else 500)


def _event(told: dict[str, Any]) -> bytes:
    return b"data: " + _ENCODE(told).encode() + b"\n\n"


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: `json.dumps` makes an encoder for each token."""


async def _body(http: Http) -> bytes:
    """Errors: Refusal 413 for more than is taken, 408 for one that does not come, 415 for what calls itself no JSON."""
    kind = http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "") and not kind.endswith("+json"):
        raise Refusal(415, f"The body must be application/json, and is {kind[:80]}.")
    length = http.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > checks.MOST_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _gathered(http)
    except TimeoutError:
        raise Refusal(408, f"The body did not arrive within {BODY_SECONDS:g} seconds.") from None


async def _gathered(http: Http) -> bytes:
    data = bytearray()
    async for piece in http.stream():
        data += piece
        if len(data) > checks.MOST_BYTES:
            raise _too_large()
    return bytes(data)


def _too_large() -> Refusal:
    return Refusal(413, f"The body is larger than {checks.MOST_BYTES // 1_000_000} MB.", code="body_too_large")


async def _until_gone(http: Http, work: Callable[[], Awaitable[T]]) -> T:
    """The work's result; when the client leaves first, the work is cancelled at once. Errors: ClientDisconnect."""
    task = asyncio.ensure_future(work())
    gone = asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(http: Http) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def application(
    gateway: Gateway, *, cors: tuple[str, ...] = (), lifespan: Any = None, live: LiveLibrary | None = None
) -> Starlette:
    """The ASGI application. `cors`: origins that browsers may call from; none by default. `live`: experts that may change."""
    routes = [
        Path("/v1/chat/completions", gateway.chat, methods=["POST"]),
        Path("/v1/completions", gateway.completion, methods=["POST"]),
        Path("/v1/embeddings", gateway.embeddings, methods=["POST"]),
        Path("/v1/models", gateway.models, methods=["GET"]),
        Path("/v1/models/{name:path}", gateway.models, methods=["GET"]),
        Path("/health", gateway.health, methods=["GET"]),
        Path("/ready", gateway.ready, methods=["GET"]),
        Path("/metrics", gateway.metrics, methods=["GET"]),
        Path("/openapi.json", gateway.openapi, methods=["GET"]),
        Path("/", gateway.page, methods=["GET"]),
        *(admin_routes(live, gateway.keys) if live is not None else ()),
    ]
    return Starlette(
        routes=routes, lifespan=lifespan, middleware=[_cors(cors)] if cors else [],
        exception_handlers=dict(HANDLERS),
    )  # fmt: skip


def _cors(origins: tuple[str, ...]) -> Middleware:
    return Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"])
