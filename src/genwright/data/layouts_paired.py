"""Layouts of alignment and forgetting: an answer liked and one not, an answer judged, one to forget; prompts to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from genwright.base.errors import DataError
from genwright.data.collate import Item, next_tokens
from genwright.data.formats import Row
from genwright.data.layouts import Answers, Setting
from genwright.data.templates import Encoded, encode_prompt, encode_rows
from genwright.models.attention import Document


@dataclass(frozen=True)
class Pairs:
    """A prompt and two answers: the prompt stands once, then the chosen answer, then the rejected one."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The prompt is cut from its beginning where the longer answer would not fit. Errors: DataError."""
        encode = lambda side: encode_rows(
            [replace(row, chosen=getattr(row, side)) for row in rows], self.setting.tokenizer, max_tokens=1 << 60
        )
        return [self._pair(row, one, other) for row, one, other in zip(rows, encode("chosen"), encode("rejected"))]

    def _pair(self, row: Row, chosen: Encoded, rejected: Encoded) -> Encoded:
        first = min(chosen.learned.index(True), rejected.learned.index(True))
        same = zip(chosen.input_ids[:first], rejected.input_ids[:first])
        shared = next((place for place, (one, other) in enumerate(same) if one != other), first)
        sides = [one.input_ids[shared:] for one in (chosen, rejected)]
        learned = [one.learned[shared:] for one in (chosen, rejected)]
        room = self.setting.max_tokens - max(map(len, sides))
        if room < 1 or not shared:
            raise DataError(
                f"{row.place}: the answers leave no room for the prompt.", wanted=f"answers of fewer than {self.setting.max_tokens} tokens",
                found=f"{max(map(len, sides))} tokens", do="shorten or remove the row, or raise adapt.max_tokens",
            )  # fmt: skip
        prompt = chosen.input_ids[max(0, shared - room) : shared]
        return Encoded(
            prompt + sides[0] + sides[1], [False] * len(prompt) + learned[0] + learned[1], max(0, shared - room), row.key,
            branches=(len(prompt), len(sides[0]), len(sides[1])),
        )  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Sequence 0 is the chosen answer, sequence 1 the rejected one."""
        start, length = row.branches[0], row.branches[1]
        return branching(row, {"pairs": 1.0, "chosen_tokens": float(sum(row.learned[start : start + length]))})


@dataclass(frozen=True)
class Judged(Pairs):
    """A wanted and an unwanted answer, and a mismatched one, the next row's, for KTO's baseline. The prompt stands once.

    A mismatched answer is cut at its end where it would not fit.
    """

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """As pairs, with a third branch. Errors: DataError for a single row, which has no other row's answer."""
        pairs = super().encode(rows)
        if len(pairs) < 2:
            raise DataError(
                "KTO's baseline needs the answer of another row.", wanted="at least two rows", found=str(len(rows))
            )
        return [self._with_mismatched(row, pairs[(number + 1) % len(pairs)]) for number, row in enumerate(pairs)]

    def _with_mismatched(self, row: Encoded, other: Encoded) -> Encoded:
        start, length = other.branches[0], min(other.branches[1], self.setting.max_tokens - row.branches[0])
        answer = slice(start, start + length)
        return replace(
            row, input_ids=row.input_ids + other.input_ids[answer], learned=row.learned + other.learned[answer],
            branches=(*row.branches, length), columns={"desirable_D": torch.tensor([1.0, 0.0, -1.0])},
        )  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Sequence 0 is wanted, 1 unwanted, 2 mismatched."""
        return branching(row, {"judged": 2.0})


@dataclass(frozen=True)
class Forget(Answers):
    """Conversations to forget, and conversations to keep: `"forget": true` in a row marks the first."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError where nothing is to be forgotten."""
        if not any(row.forget for row in rows):
            raise DataError(
                "No row is to be forgotten.", wanted='rows with "forget": true', do="mark the rows to forget"
            )
        encoded = super().encode(rows)
        return [replace(one, labels=(int(row.forget),)) for row, one in zip(rows, encoded)]

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Counted apart, since each side is a mean of its own."""
        (forget,) = row.labels
        side, plain = "forget" if forget else "retain", next_tokens(row)
        counts = {f"{one}_{what}": 0.0 for one in ("forget", "retain") for what in ("tokens", "documents")}
        counts |= {f"{side}_tokens": float(len(plain.labels)), f"{side}_documents": 1.0}
        return replace(plain, counts=counts, columns={**row.columns, "forget_D": torch.tensor([float(forget)])})


def branching(row: Encoded, counts: dict[str, float]) -> Item:
    """A shared beginning and its branches: the beginning's last token predicts the first of each branch."""
    shared, *branches = row.branches
    positions, labels, sequences, last, start = [], [], [], [], shared
    for number, length in enumerate(branches):
        learned = [place for place in range(start, start + length) if row.learned[place]]
        positions += [shared - 1 if place == start else place - 1 for place in learned]
        labels += [row.input_ids[place] for place in learned]
        sequences += [number] * len(learned)
        start += length
        last.append(start - 1)
    document: Document = row.branches
    return Item(row.input_ids, document, positions, labels, sequences, len(branches), counts, row.columns, ends=last)


@dataclass(frozen=True)
class Prompts:
    """Prompts without answers, which the model itself will answer."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The conversation up to the last answer. Errors: DataError for a prompt that leaves no room for an answer."""
        encoded = []
        for row in rows:
            ids = encode_prompt([dict(message) for message in row.conversation[:-1]], self.setting.tokenizer)
            if len(ids) >= self.setting.max_tokens:
                raise DataError(
                    f"{row.place}: the prompt leaves no room for an answer.",
                    wanted=f"a prompt of fewer than {self.setting.max_tokens} tokens", found=f"{len(ids)} tokens",
                    do="shorten or remove the row, or raise adapt.max_tokens",
                )  # fmt: skip
            encoded.append(Encoded(ids, [False] * len(ids), 0, row.key))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """A prompt becomes a group when it has been answered: then its branches are the answers."""
        return branching(row, {})
