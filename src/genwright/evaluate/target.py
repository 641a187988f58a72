"""What a suite asks: a model in memory, or one behind an OpenAI-compatible address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from genwright.base.errors import BadRequest
from genwright.data import formats
from genwright.data.layouts import Setting
from genwright.data.templates import encode_prompt
from genwright.evaluate.endpoint import Endpoint
from genwright.evaluate.forms import Message, Options
from genwright.evaluate.score import Likelihood, Scorer, branching, cut
from genwright.models.families import family_of
from genwright.models.generate import Sampling, context_of, generate
from genwright.objectives.classify import Classification


class Opened:
    """A session (`talk.Attacked`) that is opened when first asked: it answers, classifies, tells likelihoods."""

    does = ("reply", "continuations", "likelihoods", "rolling")

    def __init__(self, name: str, open_session: Callable[[], Any]) -> None:
        self.name, self.open_session = name, open_session

    @cached_property
    def session(self) -> Any:
        """The open one."""
        return self.open_session()

    def close(self) -> None:
        """Forget the model; asked again, it is opened again."""
        self.__dict__.pop("session", None)
        self.__dict__.pop("_scorer", None)

    def reply(self, conversations: Sequence[Sequence[Message]], options: Options) -> list[str]:
        """The next turns; a classifier's class. One too long for the context is an empty text."""
        if self.session.answering.solution.head.kind == "classes":
            return self._classes([str(messages[-1]["content"]) for messages in conversations])
        session, own = self.session, options.own
        session.max_new_tokens, session.seed = own.get("max_tokens", session.max_new_tokens), options.seed
        asked = [list(messages) for messages in conversations]
        return list(session.replies(asked, temperature=own.get("temperature", 0.0)))

    def continuations(self, texts: Sequence[str], stops: Sequence[str], max_tokens: int) -> list[str]:
        """Greedily, as plain text, without examples or template."""
        return self._scorer.continuations(texts, stops, max_tokens)

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """Of each answer after its context."""
        return self._scorer.likelihoods(pairs)

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Of whole texts, nats."""
        return self._scorer.rolling(texts)

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.session.answering.model, self.session.answering.tokenizer)

    def _classes(self, texts: list[str]) -> list[str]:
        answering = self.session.answering
        config = answering.model.config
        answering.setting = Setting(
            Classification(), answering.tokenizer, family_of(config), context_of(answering.model),
            answering.solution.head.labels,
        )  # fmt: skip
        with branching(answering.model):
            return list(answering.answer([formats.Row("labelled", text=text) for text in texts], None))


class InMemory:
    """A decoder that stands in memory already, as while it is trained. It is asked as it is and kept."""

    does = Opened.does

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        scorer = Scorer(model, tokenizer)
        self.continuations, self.likelihoods, self.rolling = scorer.continuations, scorer.likelihoods, scorer.rolling

    def reply(self, conversations: Sequence[Sequence[Message]], options: Options) -> list[str]:
        """The next turns; an empty text for one that is too long for the context."""
        own, most = options.own, context_of(self.model)
        sampling = Sampling(own.get("max_tokens", 128), own.get("temperature", 0.0), seed=options.seed)
        asked = [encode_prompt(list(messages), self.tokenizer) for messages in conversations]
        fits = [len(one) < most for one in asked]
        written = iter(generate(self.model, self.tokenizer, [one for one, fit in zip(asked, fits) if fit], sampling))
        decode = lambda tokens: str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return [decode(next(written)) if fit else "" for fit in fits]

    def close(self) -> None:
        """It is not ours to let go."""


class Remote:
    """An address: it replies to conversations, continues plain texts, and tells no likelihoods."""

    does = ("reply", "continuations")

    def __init__(self, endpoint: Endpoint, name: str = "") -> None:
        self.endpoint, self.name = endpoint, name or endpoint.name

    def reply(self, conversations: Sequence[Sequence[Message]], options: Options) -> list[str]:
        """The next turns. Errors: EndpointError where not one came."""
        asked = replace(
            self.endpoint, max_tokens=options.own.get("max_tokens", 256), temperature=options.own.get("temperature", 0.0)
        )  # fmt: skip
        said = asked.replies(conversations)
        return said if any(said) else [asked.reply(conversations[0]), *said[1:]]  # is the model silent, or the address?

    def continuations(self, texts: Sequence[str], stops: Sequence[str], max_tokens: int) -> list[str]:
        """Greedily, as plain text, each before its first stop. Errors: EndpointError where not one came."""
        asked = replace(self.endpoint, max_tokens=max_tokens, temperature=0.0)
        said = [cut(text, stops) for text in asked.continuations(texts, stops)]
        return said if any(said) else [cut(asked.continuation(texts[0], stops), stops), *said[1:]]

    def close(self) -> None:
        """Nothing is held."""

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """Errors: BadRequest, always."""
        raise self._refusal()

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Errors: BadRequest, always."""
        raise self._refusal()

    def _refusal(self) -> BadRequest:
        return BadRequest(
            f"{self.name} only writes.", wanted="a model on this machine: an address tells no likelihoods"
        )  # fmt: skip
