"""Any OpenAI-compatible address, asked with a time limit: a target, an attacker or a judge that somebody else serves.

Only the standard library: an address that hangs, lies about its length or answers nonsense costs `seconds` and is an
`EndpointError`, never a stuck run.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from genwright.base.errors import BadRequest, GenwrightError

Message = dict[str, Any]

MOST_BYTES = 2**22
"""Of an answer; the rest is not read."""
SILENCES = 5
"""In a row, each of all its seconds: then an address is asked no more, so that one that hangs does not cost hours."""


class EndpointError(GenwrightError):
    """The address did not answer, or not with a completion."""


@dataclass(frozen=True)
class Endpoint:
    """One model behind one address."""

    url: str
    """Up to and including /v1, or the whole of /v1/chat/completions."""
    model: str = "auto"
    key: str = ""
    seconds: float = 60.0
    """For one answer, all tries together."""
    tries: int = 2
    max_tokens: int = 256
    temperature: float = 0.0
    at_once: int = 4
    silences: list[float] = field(default_factory=list, compare=False)
    """When it last let its seconds pass, since it last answered."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise BadRequest(
                "This is no address of a model.", wanted="http://HOST:PORT/v1", found=self.url, do="correct the URL"
            )

    @property
    def name(self) -> str:
        """For reports: the model and the host, never the key."""
        return f"{self.model} at {urlsplit(self.url).netloc}"

    def reply(self, messages: Sequence[Message]) -> str:
        """The next turn. Errors: EndpointError after the last try or the last second."""
        return self._asked(
            "chat/completions", {"messages": list(messages)}, lambda choice: choice["message"]["content"]
        )  # fmt: skip

    def continuation(self, text: str, stops: Sequence[str] = ()) -> str:
        """What follows a plain text, before the first stop. Errors: EndpointError, as `reply`."""
        return self._asked(
            "completions", {"prompt": text, **({"stop": list(stops)} if stops else {})}, lambda choice: choice["text"]
        )

    def replies(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """The next turn of many, a few at once. One that gives no answer is an empty text."""
        return self._many(self.reply, conversations)

    def continuations(self, texts: Sequence[str], stops: Sequence[str] = ()) -> list[str]:
        """What follows many plain texts, a few at once. One that gives no answer is an empty text."""
        return self._many(lambda text: self.continuation(text, stops), texts)

    def _many(self, ask: Callable[[Any], str], asked: Sequence[Any]) -> list[str]:
        def or_nothing(one: Any) -> str:
            try:
                return ask(one)
            except EndpointError:
                return ""

        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(or_nothing, asked))

    def _asked(self, path: str, body: dict[str, Any], text_of: Callable[[Any], Any]) -> str:
        """The text of the first choice, after as many tries as there are and time is left for."""
        if len(self.silences) >= SILENCES:
            raise EndpointError(
                f"{self.name} is asked no more.", found=f"silence for {self.seconds:g} s, {len(self.silences)} times in a row",
                do="check that it is running, or give it more time",
            )  # fmt: skip
        end, told = time.monotonic() + self.seconds, ""
        for _ in range(max(1, self.tries)):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                text = self._once(path, body, text_of, left, end)
                self.silences.clear()
                return text
            except (OSError, ValueError, KeyError, IndexError, TypeError, http.client.HTTPException) as error:
                told = f"{type(error).__name__}: {error}"
                if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                    break
        if time.monotonic() >= end:
            self.silences.append(end)
        raise EndpointError(
            f"{self.name} gave no answer.", wanted="an OpenAI-compatible completion", found=told or f"silence for {self.seconds:g} s",
            do="check that it is running and that its model and key are right",
        )  # fmt: skip

    def _once(
        self, path: str, body: dict[str, Any], text_of: Callable[[Any], Any], seconds: float, end: float
    ) -> str:  # fmt: skip
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        told = {"model": self.model, **body, "max_tokens": self.max_tokens, "temperature": self.temperature}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{base}/{path}", json.dumps(told).encode(), headers)
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            text = text_of(json.loads(_read_until(answer, end))["choices"][0])
        if not isinstance(text, str):
            raise ValueError("the answer has no text")
        return text


def _read_until(answer: Any, end: float) -> bytes:
    """The body; a server that sends a byte now and then is cut off at `end`."""
    pieces, size = [], 0
    while piece := answer.read1(65536):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > end:
            raise TimeoutError("the answer did not end in time")
        if size > MOST_BYTES:
            raise ValueError(f"the answer is longer than {MOST_BYTES} bytes")
    return b"".join(pieces)
