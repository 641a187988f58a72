"""What a suite asks: the session is given the suite's settings, opened once, closed; an address that is silent is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.e2e import tiny

from genwright.base.errors import BadRequest
from genwright.evaluate.endpoint import Endpoint, EndpointError
from genwright.evaluate.forms import Options
from genwright.evaluate.target import InMemory, Opened, Remote
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


def test_an_address_that_is_silent_is_an_error_and_a_model_that_says_nothing_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Remote(Endpoint("http://127.0.0.1:9/v1", tries=1, seconds=2), "far")
    for ask in (lambda: target.reply(ASKED, Options("m")), lambda: target.continuations(["a"], [], 1)):
        with pytest.raises(EndpointError, match="gave no answer"):
            ask()
    for name in ("reply", "continuation"):
        monkeypatch.setattr(Endpoint, name, lambda *_: "")
    assert target.reply(ASKED * 2, Options("m")) == target.continuations(["a", "b"], [], 1) == ["", ""]
    for ask in (lambda: target.likelihoods([]), lambda: target.rolling([])):
        with pytest.raises(BadRequest, match="far only writes"):
            ask()


def test_a_model_in_memory_is_asked_as_it_is() -> None:
    tokenizer, decoder = tiny.tokenizer("decoder"), tiny.model("decoder").eval()
    target = InMemory("now", decoder, tokenizer)
    asked = [[{"role": "user", "content": "the red house"}], [{"role": "user", "content": "the red house " * 99}]]
    said = target.reply(asked, Options("m", 0, {"max_tokens": 3}))
    assert said[0] == target.reply(asked[:1], Options("m", 7, {"max_tokens": 3}))[0] and said[1] == ""
    assert target.likelihoods([("the red", " house")])[0].nats < 0 and target.rolling(["the red house"])[0] < 0
    target.close()
    assert len(target.continuations(["the red"], [], 2)) == 1
