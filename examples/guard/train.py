"""Train the guard's heads over the packaged encoder. Minutes on one core; writes guard.npz and guard.json.

    python examples/guard/train.py --out FOLDER [--cache FOLDER]

A fifth of the rows is held out, and a fifth of the sets of ordinary questions whole. A threshold has at most 1 % false alarms on each of
the two: rows of a set that training saw are easier than those of one that it did not.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np

from data import conversations, ordinary, training_rows
from genwright.models.sources import cache_folder
from genwright.serve.background import TOPICS
from genwright.serve.clusters import at_most, logistic, unit
from genwright.serve.contracts import Request
from genwright.serve.embed import Embedder, packaged_embedder
from genwright.serve.guard import ConversationGuard, Head, write_head
from genwright.serve.risk import FEATURES, Conversation, features, probability
from genwright.serve.words import hashed, rarity

FALSE_ALARMS = 0.01
TALKS = 280


def main() -> None:
    """Single turns first; the conversation's head reads what they say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "wheels")
    arguments = parser.parse_args()
    embedder = packaged_embedder()
    rows = training_rows(arguments.cache, list(TOPICS))
    train, held = _split(rows)
    held["unseen sets"] = _with_sets(train, ordinary(arguments.cache))
    print({name: (len(train.get(name, ())), len(texts)) for name, texts in held.items()})
    head = train_turns(train, held, embedder)
    head = train_talks(head, train, held, embedder)
    write_head(head, arguments.out)
    print("thresholds at 1 % false alarms:", {name: round(value, 3) for name, value in head.thresholds.items()})


def _split(rows: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    train, held = {}, {}
    for name, texts in rows.items():
        mixed = random.Random(1).sample(texts, len(texts))
        cut = len(mixed) // 5
        held[name], train[name] = mixed[:cut], mixed[cut:]
    return train, held


def _with_sets(train: dict[str, list[str]], sets: dict[str, list[str]]) -> list[str]:
    """Four fifths of the sets are learned from; the questions of the others are returned."""
    names = random.Random(1).sample(sorted(sets), len(sets))
    cut = len(names) // 5
    train["harmless"] = train["harmless"] + [text for name in names[cut:] for text in sets[name]]
    return [text for name in names[:cut] for text in sets[name]]


def train_turns(train: dict[str, list[str]], held: dict[str, list[str]], embedder: Embedder) -> Head:
    """Two heads of two classes over the same features: harmful, and injection, each against all that is harmless."""
    vectors = {name: embedder(texts) for name, texts in train.items()}
    words = {name: hashed(texts) for name, texts in train.items()}
    rare = rarity(np.vstack(list(words.values())))
    seen = {name: np.hstack([vectors[name], unit(words[name] * rare)]) for name in train}
    parts: dict[str, Any] = {}
    for label, name in (("harm", "harmful"), ("injection", "injection")):
        x = np.vstack([seen["harmless"], seen[name]])
        y = np.array([0] * len(seen["harmless"]) + [1] * len(seen[name]))
        weight, bias = logistic(x, y, 2, l2=1e-3, rounds=500)
        parts |= {
            f"{label}_F": (weight[:, 1] - weight[:, 0]).astype(np.float32),
            f"{label}_bias": float(bias[1] - bias[0]),
        }
    empty = np.zeros(len(FEATURES), np.float32)
    head = Head(
        **parts,
        rarity_W=rare,
        talk_R=empty,
        talk_bias=0.0,
        talk_mean_R=empty,
        talk_scale_R=empty + 1,
        thresholds={},
        encoder=embedder.sha256,
    )
    quiet = [
        np.array([head.odds(embedder.one(text), text) for text in held[name]]) for name in ("harmless", "unseen sets")
    ]
    for place, label in enumerate(("harmful", "injection")):
        head.thresholds[label] = probability(max(at_most(odds[:, place], FALSE_ALARMS) for odds in quiet))
    return head


def train_talks(head: Head, train: dict[str, list[str]], held: dict[str, list[str]], embedder: Embedder) -> Head:
    """Every prefix of at least two turns of a dialogue is a row: the alarm has to come early."""
    x, y = _talks(head, conversations(train["harmful"], train["harmless"], TALKS, 0), embedder, prefixes=True)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    weight, bias = logistic((x - mean) / scale, y, 2, l2=1e-3, rounds=500)
    values = vars(head) | {
        "talk_R": (weight[:, 1] - weight[:, 0]).astype(np.float32), "talk_bias": float(bias[1] - bias[0]),
        "talk_mean_R": mean.astype(np.float32), "talk_scale_R": scale.astype(np.float32),
    }  # fmt: skip
    head = Head(**values)
    quiet = [one for one in conversations(held["harmful"], held["harmless"], TALKS, 1) if not one[1]]
    x, _ = _talks(head, quiet, embedder, prefixes=False)
    odds = (x - mean) / scale @ head.talk_R + head.talk_bias
    head.thresholds["escalation"] = probability(at_most(odds, FALSE_ALARMS))
    return head


def _talks(head: Head, talks: list[tuple[list[str], int]], embedder: Embedder, *, prefixes: bool) -> tuple[Any, Any]:
    guard, x, y = ConversationGuard(embedder, head), [], []
    width = len(head.harm_F) - len(head.rarity_W)
    for turns, label in talks:
        state: dict[str, Any] = {}
        for number in range(2, len(turns) + 1):
            talk: Conversation = guard.scored(Request("chat", "auto", messages(turns[:number])).messages, state)
            if number == len(turns) or (prefixes and (not label or number > len(turns) // 2)):
                x.append(features(talk, head.harm_F[:width]))
                y.append(label)
    return np.array(x), np.array(y)


def messages(turns: list[str]) -> tuple[dict[str, Any], ...]:
    """User turns with a plain answer between."""
    told: list[dict[str, Any]] = []
    for turn in turns:
        told += [
            {"role": "user", "content": turn},
            {"role": "assistant", "content": "Here is some of what is known about it."},
        ]
    return tuple(told[:-1])


if __name__ == "__main__":
    main()
