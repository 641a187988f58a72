"""The guard in the path: small classifiers of our own over an encoder, patterns, and a conversation's risk (docs/guard.md).

    input    personal data -> the turn's harm and injection -> the conversation's risk      output: personal data, harm, by window

A guard is a folder that examples/guard makes: an encoder of its own (encoder/), and heads over it (guard.npz, guard.json).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genwright.base.errors import ModelError
from genwright.data.personal import masked, personal
from genwright.serve.clusters import unit
from genwright.serve.contracts import Decision, Message, Request, text_of
from genwright.serve.embed import Embedder
from genwright.serve.guard_model import Asker
from genwright.serve.policy import Policy
from genwright.serve.risk import WINDOW, Conversation, digest, features, probability, refuses

Vector = npt.NDArray[np.float32]
NUMBERS, CARD, ENCODER = "guard.npz", "guard.json", "encoder"

MOST_TOKENS = 64
"""Of a text, read by its two ends: docs/guard.md has detection and latency at this cap."""

OVERRIDES = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:previous|prior|above|earlier|all|your|system)\b[^.\n]{0,30}"
    r"\b(?:instructions?|prompts?|rules?|guidelines?|directions?|context)\b"
    r"|\b(?:reveal|print|repeat|show|leak)\b[^.\n]{0,30}\b(?:system|hidden|initial|secret)\b[^.\n]{0,15}\b(?:prompt|instructions?|password|key)\b"
    r"|<\|?(?:im_start|system|endoftext)\|?>|\[/?INST\]|\b(?:developer|DAN|jailbreak|god) mode\b",
    re.IGNORECASE,
)
"""Words that take instructions back: an injection wherever in a long text they stand."""

PATTERN_ODDS = 6.0
"""Added to the log odds of an injection where such words are found."""
MOST_SEARCHED = 100_000


@dataclass(frozen=True)
class Head:
    """Trained numbers. D width of the encoder, R features of a conversation."""

    harm_D: Vector
    harm_bias: float
    injection_D: Vector
    injection_bias: float
    joined_D: Vector
    joined_bias: float
    """Of the last turns read as one text: what their fragments come to."""
    talk_R: Vector
    talk_bias: float
    talk_mean_R: Vector
    talk_scale_R: Vector
    thresholds: dict[str, float]
    """Label -> probability with 1 % false alarms on held-out harmless rows."""
    encoder: str
    """Digest of the encoder that it was trained over."""

    def odds(self, vector_D: Vector, text: str) -> tuple[float, float]:
        """Log odds of (harm, injection) of a text whose vector is known."""
        pattern = PATTERN_ODDS if OVERRIDES.search(text[:MOST_SEARCHED]) else 0.0
        return float(vector_D @ self.harm_D) + self.harm_bias, float(
            vector_D @ self.injection_D
        ) + self.injection_bias + pattern

    def joined_odds(self, vector_D: Vector) -> float:
        """Log odds that some turns, read as one text, belong to an escalation."""
        return float(vector_D @ self.joined_D) + self.joined_bias

    def talk_odds(self, talk: Conversation) -> float:
        """Log odds that a conversation is an escalation."""
        found_R = (features(talk, self.harm_D) - self.talk_mean_R) / self.talk_scale_R
        return float(found_R @ self.talk_R) + self.talk_bias


def write_head(head: Head, folder: Path) -> None:
    """guard.npz and guard.json."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: value for name, value in vars(head).items() if isinstance(value, np.ndarray)}
    np.savez_compressed(folder / NUMBERS, **arrays)
    told = {name: value for name, value in vars(head).items() if name not in arrays}
    (folder / CARD).write_text(json.dumps(told, indent=1), encoding="utf-8")


def read_head(folder: Path, embedder: Embedder) -> Head:
    """Errors: ModelError where there is none, or one of another encoder."""
    try:
        told = json.loads((folder / CARD).read_text(encoding="utf-8"))
        with np.load(folder / NUMBERS, allow_pickle=False) as found:
            head = Head(**told, **{name: found[name] for name in found.files})
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{folder} is no guard.",
            wanted=f"{NUMBERS} and {CARD}",
            found=str(error),
            do="examples/guard/train.py makes one",
        ) from None
    if head.encoder != embedder.sha256:
        raise ModelError(
            "The guard was trained over another encoder.",
            wanted=head.encoder[:12],
            found=embedder.sha256[:12],
            do="train it again: examples/guard/train.py",
        )
    return head


def read_guard(folder: Path, policy: Policy | None = None) -> ConversationGuard:
    """The guard of a folder. Errors: ModelError, MissingExtra."""
    if not (folder / ENCODER / "encoder.json").exists():
        raise ModelError(
            f"{folder} is no guard.", wanted=f"an encoder in {folder / ENCODER}", do="examples/guard/train.py makes one"
        )
    embedder = Embedder(folder / ENCODER, MOST_TOKENS)
    return ConversationGuard(embedder, read_head(folder, embedder), policy)


class ConversationGuard:
    """See contracts.Guard."""

    def __init__(self, embedder: Embedder, head: Head, policy: Policy | None = None) -> None:
        self.embedder, self.head, self.policy = embedder, head, policy or Policy()
        self.window = self.policy.window
        self.asker = Asker(self.policy.model) if self.policy.model is not None else None

    def check_input(self, request: Request, state: dict[str, Any]) -> Decision:
        """Block before warn before redact; of two equal ones the surer."""
        text = request.last_user
        talk = self.scored(request.messages, state)
        harm, injection = state["odds"]
        found = [self._judged("harmful", harm, "input", text), self._judged("injection", injection, "input", text)]
        if talk.turns > 1:
            found.append(self._judged("escalation", self.head.talk_odds(talk), "input", text))
        return _strongest([*found, self._redacting(text, "input")])

    def check_output(self, window: str, state: dict[str, Any]) -> Decision:
        """The window, read together with the end of the one before it: a sentence cut in two is still seen."""
        before, state["said"] = state.get("said", ""), window[-self.window :]
        text = f"{before}{window}"
        vector = self.embedder.one(text)
        state["reply"] = state["reply"] + vector if "reply" in state else vector
        harm, _ = self.head.odds(vector, text)
        return _strongest([self._judged("harmful", harm, "output", text), self._redacting(window, "output")])

    def scored(self, messages: tuple[Message, ...], state: dict[str, Any]) -> Conversation:
        """The conversation with its newest turn; what was scored before is not scored again unless history was changed."""
        users = [place for place, one in enumerate(messages) if one.get("role") == "user"]
        talk: Conversation = state.setdefault("talk", Conversation())
        known = [digest(messages[: place + 1]) for place in users]
        begin = next(
            (number for number, one in enumerate(known) if state.get("asked") == one and number == talk.turns - 1), None
        )
        if begin is None:
            fresh = Conversation(rewritten=talk.rewritten + (talk.turns > 0))
            talk, begin = fresh, -1
            state["talk"] = talk
        for number in range(begin + 1, len(users)):
            self._add(talk, messages, users[: number + 1], state)
        state["asked"] = known[-1] if known else ""
        state["said"] = ""
        state.setdefault("odds", (-30.0, -30.0))
        return talk

    def _add(self, talk: Conversation, messages: tuple[Message, ...], users: list[int], state: dict[str, Any]) -> None:
        text = text_of(messages[users[-1]])
        vector = self.embedder.one(text)
        state["odds"] = self.head.odds(vector, text)
        joined_text = "\n".join(text_of(messages[place]) for place in users[-WINDOW:])
        joined = self.head.joined_odds(self.embedder.one(joined_text))
        reply = next((text_of(one) for one in reversed(messages[: users[-1]]) if one.get("role") == "assistant"), "")
        heard = state.pop("reply", None)
        if heard is None and reply:
            heard = self.embedder.one(reply)
        reply_vector = unit(heard).astype(np.float32) if heard is not None else None
        talk.add(state["odds"][0], joined, vector, reply_vector, refuses(reply))

    def _judged(self, label: str, odds: float, where: Literal["input", "output"], text: str) -> Decision:
        rule = self.policy.rule(label, where)
        if rule is None:
            return Decision()
        score = probability(odds)
        threshold = rule.threshold if rule.threshold is not None else self.head.thresholds[label]
        sure = score >= threshold
        if self.asker is not None and score >= threshold / 4:
            sure = self.asker.unsafe(text)
        return Decision(rule.action, label, round(score, 4), self.policy.safe_reply) if sure else Decision()

    def _redacting(self, text: str, where: Literal["input", "output"]) -> Decision:
        rule = self.policy.rule("personal-data", where)
        found = personal(text) if rule is not None else []
        if rule is None or not found:
            return Decision()
        return Decision(
            rule.action,
            "personal-data",
            1.0,
            masked(text) if rule.action == "redact" else self.policy.safe_reply,
        )


def _strongest(found: list[Decision]) -> Decision:
    order = ("allow", "warn", "redact", "route", "block")
    return max(found, key=lambda one: (order.index(one.action), one.score))
