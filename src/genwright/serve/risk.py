"""The risk of a conversation, from its turns: what no single turn shows. Numbers in, numbers out.

Of each user turn there are a vector and two scores (log odds): its harm, and whether the last turns, read as one text, climb. From them:

    last, worst, mean      of the turns' scores
    joined, worst joined   of the last `WINDOW` user turns as one text
    decayed                sum of DECAY ** age * probability: harm that comes again and again (cumulative, forgetting)
    slope                  of the turns' scores over their numbers, by least squares
    drift                  of the last turn's closeness to harm, over the first turn's
    echo                   cosine of the turn to the reply before it, weighed by harm: "now write that part out"
    rephrased              refusals that a turn much like the refused one followed

The number of turns is not among them: a long talk is no attack.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from genwright.serve.contracts import Message, text_of

WINDOW = 3
DECAY = 0.7
KEPT_TURNS = 32
ALIKE = 0.6
FEATURES = ("last", "worst", "mean", "joined", "worst_joined", "decayed", "slope", "drift", "echo", "rephrased")

REFUSALS = (
    "i can't", "i cannot", "i can not", "i'm sorry", "i am sorry", "i won't", "i will not", "unable to", "not able to",
    "can't help", "cannot help", "can't assist", "as an ai",
)  # fmt: skip


@dataclass
class Conversation:
    """What is remembered of one dialogue. T turns."""

    seen: str = ""
    """Digest of the turns that were scored: a history that was written anew is scored anew."""
    turns: int = 0
    """User turns scored."""
    scores_T: list[float] = field(default_factory=list)
    joined_T: list[float] = field(default_factory=list)
    first: npt.NDArray[np.float32] | None = None
    last: npt.NDArray[np.float32] | None = None
    echo: float = 0.0
    rephrased: int = 0
    rewritten: int = 0
    """Times that a client changed what was said before."""

    def add(self, score: float, joined: float, vector_D: npt.NDArray[np.float32], reply_D: Any, refused: bool) -> None:
        """One user turn, and of the reply before it the vector (None: none) and whether it refused."""
        if refused and self.last is not None and float(self.last @ vector_D) > ALIKE:
            self.rephrased += 1
        self.echo = probability(score) * max(0.0, float(reply_D @ vector_D)) if reply_D is not None else 0.0
        self.scores_T = [*self.scores_T, score][-KEPT_TURNS:]
        self.joined_T = [*self.joined_T, joined][-KEPT_TURNS:]
        self.first = vector_D if self.first is None else self.first
        self.last, self.turns = vector_D, self.turns + 1


def features(talk: Conversation, harm_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """FEATURES of a conversation of at least one turn; `harm_D`: the direction in which harm lies."""
    scores, joined = np.array(talk.scores_T), np.array(talk.joined_T)
    assert talk.first is not None and talk.last is not None, "a turn was added"
    ages = np.arange(len(scores))[::-1]
    decayed = float((DECAY**ages * np.array([probability(one) for one in scores])).sum() * (1 - DECAY))
    drift = float((talk.last - talk.first) @ harm_D)
    return np.array([
        scores[-1], scores.max(), scores.mean(), joined[-1], joined.max(), decayed, slope(talk.scores_T), drift, talk.echo,
        min(talk.rephrased, 5),
    ])  # fmt: skip


def slope(scores_T: Sequence[float]) -> float:
    """Least squares over the turns' numbers; 0 for one turn."""
    if len(scores_T) < 2:
        return 0.0
    number = np.arange(len(scores_T)) - (len(scores_T) - 1) / 2
    return float(number @ np.array(scores_T) / (number @ number))


def probability(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))


def digest(messages: Sequence[Message]) -> str:
    """Of user and assistant turns, in their order."""
    hashed = hashlib.sha256()
    for message in messages:
        if message.get("role") in ("user", "assistant"):
            told = f"{message['role']}\0{text_of(message)}\0\0"
            hashed.update(told.encode("utf-8", "replace"))
    return hashed.hexdigest()[:32]


def refuses(reply: str) -> bool:
    """Whether an answer begins as refusals do."""
    begin = reply[:200].lower().replace("’", "'")
    return any(word in begin for word in REFUSALS)
