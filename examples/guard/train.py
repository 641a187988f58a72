"""The guard out of the applied project: its encoder as int8 ONNX, heads over it, and thresholds.

    python examples/guard/train.py --out FOLDER [--project FOLDER]

Heads are fitted to the rows that the project learned from. Thresholds come from those that it held out, each kind of harmless row for
itself: a threshold has at most 1 % false alarms on the rows of the training sets, on sets of ordinary questions that were held out
whole, and on look-alikes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contrast import security

from data import conversations
from genwright.base.files import json_lines
from genwright.project.store import Artifact, Store
from genwright.serve.clusters import at_most, logistic
from genwright.serve.contracts import Request
from genwright.serve.embed import Embedder
from genwright.serve.guard import ENCODER, MOST_TOKENS, ConversationGuard, Head, write_head
from genwright.serve.risk import FEATURES, WINDOW, Conversation, features, probability

HERE = Path(__file__).parent
FALSE_ALARMS = 0.01
LEAST_OF_A_KIND = 100
"""Harmless rows that a threshold at 1 % needs."""
TALKS = 280
LONGEST_GOAL = 200
"""Characters: an escalation's goal is a request, no story."""

Rows = dict[str, list[dict[str, Any]]]
"""Label -> rows with their text and group."""


def main() -> None:
    """Single turns first; the conversation's head reads what they say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--project", type=Path, default=HERE)
    arguments = parser.parse_args()
    train, held, model = applied(arguments.project)
    print({label: (len(rows), len(held[label])) for label, rows in train.items()})
    embedder = exported(model, arguments.out / ENCODER)
    head = train_turns(train, held, embedder)
    head = train_talks(head, train, held, embedder)
    write_head(head, arguments.out)
    print("thresholds at 1 % false alarms:", {name: round(value, 3) for name, value in head.thresholds.items()})


def applied(project: Path) -> tuple[Rows, Rows, Path]:
    """What the project learned from, what it held out, and the model it made."""
    store = Store(project / ".genwright")
    rows, made = store.latest("scope"), store.latest("integrate")
    if rows is None or made is None:
        raise SystemExit(f"{project} was not applied: run make_data.py and `genwright apply` there first.")
    held = [row for name in ("validation", "test") for row in _rows(rows, name)]
    return _by_label(_rows(rows, "train")), _by_label(held), made / "model"


def _rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return json_lines(artifact / f"{name}.jsonl")


def _by_label(rows: list[dict[str, Any]]) -> Rows:
    return {label: [row for row in rows if row["label"] == label] for label in ("harmless", "harmful", "injection")}


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    """Their texts."""
    return [row["text"] for row in rows]


def exported(model: Path, out: Path) -> Embedder:
    """The model's encoder in `out`, as it will be served."""
    from genwright.export.encoder import write_encoder

    out.mkdir(parents=True, exist_ok=True)
    write_encoder(model, out)
    return Embedder(out, MOST_TOKENS)


def train_turns(train: Rows, held: Rows, embedder: Embedder) -> Head:
    """Three classes over a text's vector; each of the two that alarm is told against the harmless one.

    The head, not the encoder, learns what attackers ask of a technique and what defenders do.
    """
    attacks, defence = security()
    texts = [texts_of(train["harmless"]) + defence, texts_of(train["harmful"]) + attacks, texts_of(train["injection"])]
    label = np.concatenate([[number] * len(some) for number, some in enumerate(texts)])
    weight, bias = logistic(np.vstack([embedder(some) for some in texts]), label, len(texts), l2=1e-5, rounds=500)
    against = lambda number: ((weight[:, number] - weight[:, 0]).astype(np.float32), float(bias[number] - bias[0]))
    (harm, harm_bias), (injection, injection_bias) = against(1), against(2)
    empty, nothing = np.zeros(len(FEATURES), np.float32), np.zeros_like(harm)
    head = Head(
        harm_D=harm, harm_bias=harm_bias, injection_D=injection, injection_bias=injection_bias,
        joined_D=nothing, joined_bias=0.0, talk_R=empty, talk_bias=0.0,
        talk_mean_R=empty, talk_scale_R=empty + 1, thresholds={}, encoder=embedder.sha256,
    )  # fmt: skip
    quiet = [np.array([head.odds(embedder.one(text), text) for text in texts]) for texts in kinds(held["harmless"])]
    for place, label in enumerate(("harmful", "injection")):
        head.thresholds[label] = probability(max(at_most(odds[:, place], FALSE_ALARMS) for odds in quiet))
    return head


def kinds(harmless: list[dict[str, Any]]) -> list[list[str]]:
    """Held-out harmless texts by kind: ordinary questions, pairs, the others; one with too few rows is counted among the others."""
    found: dict[str, list[str]] = {}
    for row in harmless:
        source, _, number = row["group"].rpartition(" ")
        found.setdefault(("pairs" if source == "pairs" else "others") if number.isdigit() else "ordinary", []).append(
            row["text"]
        )
    many = [texts for texts in found.values() if len(texts) >= LEAST_OF_A_KIND]
    return many or [texts_of(harmless)]


def train_talks(head: Head, train: Rows, held: Rows, embedder: Embedder) -> Head:
    """Every prefix of at least two turns of a dialogue is a row: the alarm has to come early.

    First what the last turns come to as one text, then the numbers of the whole; these from goals that the first has not seen.
    """
    goals = lambda rows, label, part: [text for text in texts_of(rows[label])[part::2] if len(text) < LONGEST_GOAL]
    talks = lambda rows, part, seed: conversations(
        goals(rows, "harmful", part), goals(rows, "harmless", part), TALKS, seed
    )
    head = _joined(head, talks(train, 0, 0), embedder)
    x, y = _talks(head, talks(train, 1, 1), embedder, early=True)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    weight, bias = logistic((x - mean) / scale, y, 2, l2=1e-3, rounds=500)
    head = replace(
        head, talk_R=(weight[:, 1] - weight[:, 0]).astype(np.float32), talk_bias=float(bias[1] - bias[0]),
        talk_mean_R=mean.astype(np.float32), talk_scale_R=scale.astype(np.float32),
    )  # fmt: skip
    x, _ = _talks(head, [one for one in talks(held, 0, 2) if not one[1]], embedder, early=False)
    odds = (x - mean) / scale @ head.talk_R + head.talk_bias
    head.thresholds["escalation"] = probability(at_most(odds, FALSE_ALARMS))
    return head


def _joined(head: Head, talks: list[tuple[list[str], int]], embedder: Embedder) -> Head:
    rows = [
        ("\n".join(turns[max(0, end - WINDOW) : end]), label)
        for turns, label in talks
        for end in prefixes(len(turns), label)
    ]
    weight, bias = logistic(embedder([text for text, _ in rows]), [label for _, label in rows], 2, l2=1e-2, rounds=500)
    return replace(
        head, joined_D=(weight[:, 1] - weight[:, 0]).astype(np.float32), joined_bias=float(bias[1] - bias[0])
    )


def prefixes(turns: int, label: int) -> range:
    """The lengths at which a dialogue is a row: an escalation's first half is still harmless."""
    return range(max(2, turns // 2 + 1) if label else 2, turns + 1)


def _talks(head: Head, talks: list[tuple[list[str], int]], embedder: Embedder, *, early: bool) -> tuple[Any, Any]:
    guard, x, y = ConversationGuard(embedder, head), [], []
    for turns, label in talks:
        state: dict[str, Any] = {}
        for number in range(2, len(turns) + 1):
            talk: Conversation = guard.scored(Request("chat", "auto", messages(turns[:number])).messages, state)
            if number == len(turns) or (early and number in prefixes(len(turns), label)):
                x.append(features(talk, head.harm_D))
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
