"""A guard model behind an OpenAI-compatible address: asked in threads of its own, never for longer than it is given.

One that fails or is slow is left alone for `RESTS` seconds, in which its `on_error` decides at once: a dead guard model costs every
request nothing, instead of its whole time.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late

from genwright.serve.policy import GuardModel

MOST_CHARACTERS = 8_000
MOST_BYTES = 65_536
THREADS = 4
RESTS = 5.0
KEPT = 256
FAULTS = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, urllib.error.URLError)


class Asker:
    """Asks one guard model. Safe to share between threads."""

    def __init__(self, model: GuardModel) -> None:
        self.model = model
        self._threads = ThreadPoolExecutor(THREADS, "guard-model")
        self._known: OrderedDict[str, Future[bool]] = OrderedDict()
        self._rests_until = 0.0
        self._lock = threading.Lock()

    def unsafe(self, text: str) -> bool:
        """Whether the model calls a text unsafe, by the time that its policy allows; else what `on_error` says."""
        text = text[:MOST_CHARACTERS]
        if time.monotonic() < self._rests_until:
            return self.model.on_error == "block"
        answer = self._answer(text)
        try:
            return answer.result(self.model.seconds)
        except (*FAULTS, Late):
            with self._lock:
                self._known.pop(text, None)
                self._rests_until = time.monotonic() + RESTS
            answer.cancel()
            return self.model.on_error == "block"

    def _answer(self, text: str) -> Future[bool]:
        """The same text is asked about once: each label of a turn would ask again."""
        with self._lock:
            if text not in self._known:
                self._known[text] = self._threads.submit(asked, self.model, text)
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[text]


def asked(model: GuardModel, text: str) -> bool:
    """Whether its answer begins with "unsafe" or "yes". Errors: those of `FAULTS`."""
    body = {
        "model": model.name, "max_tokens": 4, "temperature": 0,
        "messages": [{"role": "user", "content": f"Is this unsafe? Answer safe or unsafe.\n\n{text}"}],
    }  # fmt: skip
    call = urllib.request.Request(
        f"{model.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    ends, body_read = time.monotonic() + model.seconds, b""
    with urllib.request.urlopen(call, timeout=model.seconds) as answer:
        while len(body_read) < MOST_BYTES and time.monotonic() < ends and (piece := answer.read1(MOST_BYTES)):
            body_read += piece
    told = json.loads(body_read)["choices"][0]["message"]["content"]
    return str(told).strip().lower().startswith(("unsafe", "yes"))
