"""One request's life, from the checked body to its record:

    admit (key, limits) -> think (profile, guard, route) -> run (engine) -> look (guard, in windows) -> tell -> meter

Whatever happens on the way, a record is written, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from genwright.serve.contracts import (
    AUTO,
    BASE,
    Chunk,
    Decision,
    Engine,
    Expert,
    Guard,
    Library,
    Profile,
    Profiler,
    Request,
    Route,
    Router,
    Usage,
    text_of,
)  # fmt: skip
from genwright.serve.energy import Split, Work
from genwright.serve.keys import Key, Limits
from genwright.serve.live import Holders
from genwright.serve.meter import Meter, Record
from genwright.serve.pool import Pool
from genwright.serve.replies import Refusal

MOST_CONVERSATIONS = 10_000
"""Kept in memory; the one not heard of for longest is forgotten."""

HISTORY = 32
"""Records of a key that the profiler sees."""


@dataclass(frozen=True)
class Prices:
    """Dollars: of a million tokens each, or of the machine's hour where no token has a price."""

    prompt: float = 0.0
    cached: float = 0.0
    generated: float = 0.0
    hour: float = 0.0

    def of(self, usage: Usage, seconds: float) -> float:
        """What a request costs. By the hour: its share of the machine while it ran, by `seconds` of one of its slots."""
        if self.prompt or self.cached or self.generated:
            computed = usage.prompt - usage.cached
            return (computed * self.prompt + usage.cached * self.cached + usage.generated * self.generated) / 1e6
        return self.hour * seconds / 3600


@dataclass
class Parts:
    """What the gateway works with. Everything but pool, meter and split may be missing."""

    pool: Pool
    meter: Meter
    split: Split
    model: str
    """The base's name."""
    context: int = 4096
    slots: int = 1
    """Requests that the engine computes at a time: an hour's price is shared among them."""
    router: Router | None = None
    guard: Guard | None = None
    profiler: Profiler | None = None
    library: Library | None = None
    prices: Prices = field(default_factory=Prices)
    holders: Holders = field(default_factory=Holders)
    """Which versions of experts requests are holding."""
    examples: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
    """Sets examples before a question, where the result is a prompt with examples."""


@dataclass
class Conversation:
    """What is remembered between the turns of a dialogue."""

    held: str | None = None
    guard: dict[str, Any] = field(default_factory=dict)


class Conversations:
    """The latest conversations, by key and id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Conversation] = OrderedDict()

    def of(self, request: Request) -> Conversation:
        """The conversation of a request, begun where it is new."""
        name = (request.key, request.conversation)
        kept = self._kept.setdefault(name, Conversation())
        self._kept.move_to_end(name)
        if len(self._kept) > MOST_CONVERSATIONS:
            self._kept.popitem(last=False)
        return kept


def conversation_id(told: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """The client's own id, or a hash of the turns up to the first user's: the same at every turn of one dialogue."""
    if told:
        return told
    first = next((number for number, message in enumerate(messages) if message.get("role") == "user"), 0)
    text = "\x1f".join(f"{message.get('role')}\x1e{text_of(dict(message))}" for message in messages[: first + 1])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Thought:
    """What is known before an engine runs."""

    request: Request
    route: Route
    expert: Expert | None
    profile: Profile
    decision: Decision


class Answers:
    """Answers requests with what there is."""

    def __init__(self, parts: Parts, limits: Limits | None = None) -> None:
        self.parts, self.limits = parts, limits or Limits()
        self.conversations = Conversations()
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.running = 0
        self._thinking = ThreadPoolExecutor(1, "thinking")

    async def think(self, request: Request, key: Key | None) -> Thought:
        """Profile, guard and route. Errors: Refusal for a model nobody has, or that this key may not use."""
        parts = self.parts
        if parts.router is None and parts.guard is None and parts.profiler is None:
            return self._think(request, key)
        return await asyncio.get_running_loop().run_in_executor(self._thinking, self._think, request, key)

    def _think(self, request: Request, key: Key | None) -> Thought:
        parts, kept = self.parts, self.conversations.of(request)
        profile = Profile()
        if parts.profiler is not None:
            profile = parts.profiler.classify(request, self.history.get(request.key, ()))
        decision = parts.guard.check_input(request, kept.guard) if parts.guard is not None else Decision()
        if decision.action == "redact":
            request = replace(request, messages=_with_last_user(request.messages, decision.text))
        route, expert = self._route(request, key, kept)
        return Thought(request, route, expert, profile, decision)

    def _route(self, request: Request, key: Key | None, kept: Conversation) -> tuple[Route, Expert | None]:
        """By name, or by the router; a key that may not use what the router chose gets the base."""
        library, name = self.parts.library, request.model
        if name in (BASE, self.parts.model):
            return Route(None, reason="named"), None
        if name == AUTO:
            route = Route(None, reason="only-one")
            if self.parts.router is not None:
                route = self.parts.router.route(request, kept.held)
            if route.expert is not None and not _may_use(key, route.expert):
                route = replace(route, expert=None, reason="not-allowed")
            expert = library.get(route.expert) if library is not None and route.expert is not None else None
            if route.expert is not None and expert is None:
                route = replace(route, expert=None, reason="nothing-fits")
            kept.held = route.expert
            return route, expert
        expert = library.get(name) if library is not None else None
        if expert is None:
            raise Refusal(404, f"There is no model '{name[:80]}'.", param="model", code="model_not_found")
        if not _may_use(key, name):
            raise Refusal(403, f"This key may not use '{name}'.", param="model", code="model_not_allowed")
        return Route(name, reason="named"), expert

    def begin(self, thought: Thought, key: Key | None) -> Run:
        """An accepted request, ready to run. Errors: Refusal 429 when the key's limits are reached."""
        thought = self._as_it_is_now(thought)
        held = self._may_use(thought)
        if key is not None and (used := self.limits.refuse(key, *held)) is not None:
            raise Refusal(429, f"{used[0][0].upper()}{used[0][1:]}.", code="rate_limit_exceeded", retry_after=used[1])
        return Run(self, thought, held if key is not None else None)

    def _may_use(self, thought: Thought) -> tuple[float, float]:
        """(tokens, dollars) that a request may come to: what it asks for, else what is expected of it, else a whole context."""
        request, profile, prices = thought.request, thought.profile, self.parts.prices
        if request.kind == "embedding":
            return 0, 0.0
        told = request.params.get("max_completion_tokens") or request.params.get("max_tokens") or profile.max_tokens
        tokens = float(told or profile.expected_tokens or self.parts.context)
        return tokens, tokens * prices.generated / 1e6

    def _as_it_is_now(self, thought: Thought) -> Thought:
        """An expert may have been replaced or removed while the request was thought about. Errors: Refusal 404 for a name that is gone."""
        if thought.expert is None or self.parts.library is None:
            return thought
        now = self.parts.library.get(thought.expert.name)
        if now is None and thought.route.reason == "named":
            raise Refusal(
                404, f"The expert '{thought.expert.name}' was removed.", param="model", code="model_not_found"
            )
        if now is None:
            return replace(thought, expert=None, route=replace(thought.route, expert=None, reason="nothing-fits"))
        return replace(thought, expert=now)

    def close(self) -> None:
        """End the thread that thinks."""
        self._thinking.shutdown(wait=False, cancel_futures=True)


class Run:
    """One accepted request while it runs. `close` writes its record; a second call does nothing."""

    def __init__(self, answers: Answers, thought: Thought, held: tuple[float, float] | None = None) -> None:
        self.answers, self.thought, self.parts, self.held = answers, thought, answers.parts, held
        self.id, self.streams = f"gw-{secrets.token_hex(12)}", bool(thought.request.params.get("stream"))
        self.began, self._clock = time.time(), time.perf_counter()
        self.usage, self.counted_pieces, self.tool_calls = Usage(), 0, 0
        self.first: float | None = None
        self.last: float | None = None
        self.engine: Engine | None = None
        self.guard_output = ""
        self.told_usage = False
        self.record: Record | None = None
        self._work: Work = self.parts.split.begin(self.id)
        answers.running += 1
        if thought.expert is not None:
            self.parts.holders.hold(thought.expert.served_name)

    @property
    def is_safe_reply(self) -> bool:
        """Whether the guard answers instead of the model."""
        return self.thought.decision.action in ("block", "route")

    async def chunks(self) -> AsyncIterator[Chunk]:
        """The engine's pieces, counted."""
        request, profile = self.thought.request, self.thought.profile
        body: dict[str, Any] = dict(request.params)
        if request.kind == "chat":
            messages, examples = list(request.messages), self.parts.examples
            body["messages"] = examples(messages) if examples is not None and self.thought.expert is None else messages
        elif self.thought.decision.action == "redact":
            body["prompt"] = request.messages[0]["content"]
        if profile.max_tokens and "max_tokens" not in body and "max_completion_tokens" not in body:
            body["max_tokens"] = profile.max_tokens
        stream = self.parts.pool.generate(request.kind, body, self.thought.expert, self._retried)
        try:
            async for engine, chunk in stream:
                self.engine = engine
                self.count(chunk)
                yield chunk
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    def _retried(self, engine: Engine) -> None:
        """An attempt that gave no token: a row of its own, without tokens."""
        self.parts.meter.add(replace(self._as_record("retried", 503), id=f"{self.id}-retry", engine=engine.name))

    def count(self, chunk: Chunk) -> None:
        """Take in what a piece tells."""
        now = time.perf_counter() - self._clock
        if not self.streams and chunk.decode_seconds is not None:
            self.first, self.last = max(0.0, now - chunk.decode_seconds), now
        if self.streams and (chunk.tokens or chunk.text):
            self.first = now if self.first is None else self.first
            self.last = now
            self.counted_pieces += chunk.tokens
        if chunk.usage is not None:
            self.usage, self.told_usage = chunk.usage, True
        self.tool_calls += _tool_calls(chunk.data)
        self._work.computed = self.usage.prompt - self.usage.cached
        self._work.generated = self.generated

    @property
    def generated(self) -> int:
        """Tokens generated so far, as the engine says, else as many as pieces came."""
        return self.usage.generated if self.told_usage else self.counted_pieces

    def close(self, outcome: Any, status: int = 200) -> Record:
        """Write the record."""
        if self.record is not None:
            return self.record
        joules = self.parts.split.end(self.id)
        self.answers.running -= 1
        if self.thought.expert is not None:
            self.parts.holders.let_go(self.thought.expert.served_name)
        self.record = replace(
            self._as_record(outcome, status), joules=joules, joules_source=self.parts.split.meter.source
        )
        self.parts.meter.add(self.record)
        key = self.thought.request.key
        if self.held is not None:
            self.answers.limits.release(key, *self.held)
        if key:
            self.answers.limits.spent(key, self.record.prompt_tokens + self.record.generated_tokens, self.record.usd)
        history = self.answers.history.setdefault(key, [])
        history.append({name: getattr(self.record, name) for name in HISTORY_FIELDS})
        del history[:-HISTORY]
        return self.record

    def _as_record(self, outcome: Any, status: int) -> Record:
        thought, request, expert = self.thought, self.thought.request, self.thought.expert
        seconds = time.perf_counter() - self._clock
        usage = replace(self.usage, generated=self.generated)
        return Record(
            id=self.id, began=self.began, kind=request.kind, key=request.key, conversation=request.conversation,
            model=request.model, expert=expert.name if expert else "", version=expert.version if expert else "",
            reason=thought.route.reason, score=thought.route.score, engine=self.engine.name if self.engine else "",
            profile=thought.profile.name, outcome=outcome, status=status, stream=self.streams, prompt_tokens=usage.prompt,
            cached_tokens=usage.cached, generated_tokens=usage.generated, tool_calls=self.tool_calls,
            counted=self.told_usage or outcome in ("blocked", "refused"), seconds=seconds,
            ttft_seconds=self.first, tpot_seconds=self._tpot(),
            guard_input=_said(thought.decision), guard_output=self.guard_output,
            expected_tokens=thought.profile.expected_tokens, expected_joules=thought.profile.expected_joules,
            usd=self.parts.prices.of(usage, seconds / self.parts.slots),
        )  # fmt: skip

    def _tpot(self) -> float | None:
        if self.first is None or self.last is None or self.generated < 2:
            return None
        return (self.last - self.first) / (self.generated - 1)

    def told(self) -> dict[str, Any]:
        """The `genwright` field of an answer: who answered, why, and once it is over what it took."""
        route, expert = self.thought.route, self.thought.expert
        told: dict[str, Any] = {
            "request": self.id, "expert": expert.name if expert else None, "version": expert.version if expert else None,
            "reason": route.reason, "score": round(route.score, 4), "margin": round(route.margin, 4),
        }  # fmt: skip
        if self.thought.profile.name:
            told["profile"] = self.thought.profile.name
        if self.thought.decision.action != "allow" or self.guard_output:
            told["guard"] = {
                "input": _said(self.thought.decision),
                "output": self.guard_output,
                "text": self._warning(),
            }
        if self.record is not None:
            record = self.record
            told |= {
                "prompt_tokens": record.prompt_tokens, "cached_tokens": record.cached_tokens,
                "generated_tokens": record.generated_tokens, "seconds": round(record.seconds, 4),
                "joules": round(record.joules, 3), "joules_source": record.joules_source, "usd": record.usd,
            }  # fmt: skip
        return told

    def _warning(self) -> str:
        return self.thought.decision.text if self.thought.decision.action == "warn" else ""

    def headers(self) -> dict[str, str]:
        """The same before the answer begins."""
        route, expert = self.thought.route, self.thought.expert
        told = {
            "x-genwright-request": self.id, "x-genwright-expert": expert.name if expert else "base",
            "x-genwright-reason": route.reason, "x-genwright-score": f"{route.score:.4f}",
        }  # fmt: skip
        if self.thought.profile.name:
            told["x-genwright-profile"] = self.thought.profile.name
        if self.thought.decision.action != "allow":
            told["x-genwright-guard"] = _said(self.thought.decision)
        return told


HISTORY_FIELDS = (
    "began", "kind", "conversation", "profile", "expert", "prompt_tokens", "cached_tokens", "generated_tokens", "seconds",
    "ttft_seconds", "tpot_seconds", "joules", "outcome",
)  # fmt: skip


def _may_use(key: Key | None, expert: str) -> bool:
    return key is None or key.experts is None or expert in key.experts


def _said(decision: Decision) -> str:
    return "" if decision.action == "allow" else f"{decision.action}:{decision.label}"


def _with_last_user(messages: tuple[dict[str, Any], ...], text: str) -> tuple[dict[str, Any], ...]:
    number = max((n for n, message in enumerate(messages) if message.get("role") == "user"), default=None)
    if number is None:
        return messages
    return (*messages[:number], {**messages[number], "content": text}, *messages[number + 1 :])


def _tool_calls(data: Mapping[str, Any]) -> int:
    """Calls that begin in this piece: in a stream each has its name once."""
    choices = data.get("choices") or []
    told = (choices[0].get("message") or choices[0].get("delta") or {}) if choices else {}
    return sum(1 for call in told.get("tool_calls") or [] if (call.get("function") or {}).get("name"))
