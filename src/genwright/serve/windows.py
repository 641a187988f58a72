"""Output looked at before it is released: pieces are held until a window of text is full, judged, and let go together.

Judging runs in threads of its own, so that it holds up nobody else's answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genwright.serve.answers import Run
from genwright.serve.contracts import Chunk, Decision

LOOKING = ThreadPoolExecutor(4, "guard-output")


async def released(run: Run, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The pieces of an answer that may be told. One that is blocked ends with the guard's text; the engine is stopped."""
    guard = run.parts.guard
    if guard is None or not guard.window:
        async for chunk in chunks:
            yield chunk
        return
    held: list[Chunk] = []
    async for chunk in chunks:
        held.append(chunk)
        if sum(len(said(one)) for one in held) >= guard.window:
            decision = await _look(run, held)
            for one in _told(held, decision):
                yield one
            held = []
            if decision.action in ("block", "route"):
                return
    for one in _told(held, await _look(run, held)):
        yield one


def said(chunk: Chunk) -> str:
    """A piece's text, the arguments of its tool calls included."""
    choices = chunk.data.get("choices") or []
    told = (choices[0].get("delta") or choices[0].get("message") or {}) if choices else {}
    calls = "".join(str((call.get("function") or {}).get("arguments") or "") for call in told.get("tool_calls") or [])
    return chunk.text + calls


async def _look(run: Run, held: list[Chunk]) -> Decision:
    text = "".join(map(said, held))
    if not text or run.parts.guard is None:
        return Decision()
    state = run.answers.conversations.of(run.thought.request).guard
    look = run.parts.guard.check_output
    decision = await asyncio.get_running_loop().run_in_executor(LOOKING, look, text, state)
    if decision.action != "allow":
        run.guard_output = f"{decision.action}:{decision.label}"
    return decision


def _told(held: list[Chunk], decision: Decision) -> list[Chunk]:
    """What is told of a window: as it is, with its text replaced, or the guard's text as the end."""
    if decision.action in ("allow", "warn") or not held:
        return held
    ends = decision.action in ("block", "route")
    first = _with_text(held[0], decision.text, ends)
    return [first] if ends else [first, *(one for one in map(_without_text, held[1:]) if one is not None)]


def _with_text(chunk: Chunk, text: str, ends: bool) -> Chunk:
    """The same piece saying something else; calls of tools go with what they were made of."""
    data: dict[str, Any] = json.loads(json.dumps(chunk.data))
    for choice in (data.get("choices") or [])[:1]:
        place = next((choice[name] for name in ("delta", "message") if isinstance(choice.get(name), dict)), choice)
        place["text" if place is choice else "content"] = text
        place.pop("tool_calls", None)
        if ends:
            choice["finish_reason"] = "content_filter"
    return Chunk(data, text, chunk.tokens, chunk.usage)


def _without_text(chunk: Chunk) -> Chunk | None:
    """The rest of a redacted window: only what is no text, such as its end and its usage."""
    choices = chunk.data.get("choices") or []
    if choices and not choices[0].get("finish_reason"):
        return None
    return _with_text(chunk, "", ends=False) if choices else chunk
