"""What a suite asks: the session is given the suite's settings, opened once, closed; an address that is silent is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from genwright.base.errors import BadRequest
from genwright.evaluate.endpoint import Endpoint, EndpointError
from genwright.evaluate.forms import Options
from genwright.evaluate.target import Opened, Remote
from genwright.models.families import Head

ASKED = [[{"role": "user", "content": "a"}]]


class Session:
    """Remembers how it was asked."""

    def __init__(self) -> None:
        self.answering = SimpleNamespace(solution=SimpleNamespace(head=Head()))
        self.max_new_tokens, self.seed = 128, 0

    def replies(self, asked: list[Any], *, temperature: float) -> list[str]:
        return [f"{self.max_new_tokens} {self.seed} {temperature}"] * len(asked)


def test_a_session_is_asked_as_the_suite_says_and_opened_when_needed() -> None:
    opened: list[Session] = []
    target = Opened("a", lambda: opened.append(Session()) or opened[-1])
    assert not opened
    assert target.reply(ASKED, Options("m", 3, {"max_tokens": 5, "temperature": 0.5})) == ["5 3 0.5"]
    assert target.reply(ASKED, Options("m")) == ["5 0 0.0"] and len(opened) == 1
    target.close()
    assert target.reply(ASKED, Options("m")) == ["128 0 0.0"] and len(opened) == 2


def test_an_address_is_asked_as_the_suite_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lambda endpoint, asked: [f"{endpoint.max_tokens} {endpoint.temperature}"] * len(asked)
    monkeypatch.setattr(Endpoint, "replies", said)
    target = Remote(Endpoint("http://127.0.0.1:9/v1", model="m"))
    assert target.name == "m at 127.0.0.1:9"
    assert target.reply(ASKED, Options("m", 0, {"max_tokens": 5, "temperature": 0.5})) == ["5 0.5"]


def test_an_address_continues_plain_texts_up_to_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lambda endpoint, texts, stops: [f"{text} {endpoint.max_tokens} {endpoint.temperature};x" for text in texts]
    monkeypatch.setattr(Endpoint, "continuations", said)
    target = Remote(Endpoint("http://127.0.0.1:9/v1", model="m", temperature=0.7))
    assert target.continuations(["a", "b"], [";"], 5) == ["a 5 0.0", "b 5 0.0"]


def test_an_address_that_says_nothing_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Remote(Endpoint("http://127.0.0.1:9/v1"), "far")
    monkeypatch.setattr(Endpoint, "replies", lambda endpoint, asked: [""] * len(asked))
    with pytest.raises(EndpointError, match="far gave no answer to any of 1 rows"):
        target.reply(ASKED, Options("m"))
    monkeypatch.setattr(Endpoint, "continuations", lambda endpoint, texts, stops: [""] * len(texts))
    with pytest.raises(EndpointError, match="far gave no answer to any of 1 rows"):
        target.continuations(["a"], [], 1)
    for ask in (lambda: target.likelihoods([]), lambda: target.rolling([])):
        with pytest.raises(BadRequest, match="far only writes"):
            ask()
