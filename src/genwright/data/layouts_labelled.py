"""Layouts whose target is no text: a class, a tag on every word, a text that means the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from genwright.base.errors import DataError, RecipeError
from genwright.data.collate import Item
from genwright.data.formats import Row
from genwright.data.layouts import IGNORED, Setting
from genwright.data.templates import Encoded


@dataclass(frozen=True)
class Classes:
    """A text and its class, read where the head reads: at the last token of a decoder, at the first of an encoder."""

    families: ClassVar[tuple[str, ...]] = ("decoder", "encoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError for a label that no training row has."""
        tokenizer, known = self.setting.tokenizer, {label: number for number, label in enumerate(self.setting.labels)}
        encoded = []
        for row in rows:
            if row.label not in known:
                raise DataError(f"{row.place}: the label '{row.label}' is in no training row.", wanted=", ".join(known))
            ids = tokenizer(row.text, truncation=True, max_length=self.setting.max_tokens)["input_ids"]
            encoded.append(Encoded(list(ids), [False] * len(ids), 0, row.key, labels=(known[row.label],)))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """One label a row."""
        place = len(row.input_ids) - 1 if self.setting.family == "decoder" else 0
        return Item(row.input_ids, len(row.input_ids), [place], list(row.labels), [0])


@dataclass(frozen=True)
class Tags:
    """Words with a tag each: the first token of a word is what its tag is read from."""

    families: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError for a tag that no training row has; RecipeError for a tokenizer that cannot tell words."""
        tokenizer, known = self.setting.tokenizer, {label: number for number, label in enumerate(self.setting.labels)}
        if not tokenizer.is_fast:
            raise RecipeError("Words can be told only by a fast tokenizer.", do="choose a model with a tokenizer.json")
        encoded = []
        for row in rows:
            unknown = sorted(set(row.tags) - set(known))
            if unknown:
                raise DataError(f"{row.place}: the tag '{unknown[0]}' is in no training row.", wanted=", ".join(known))
            tokens = tokenizer(
                list(row.words), is_split_into_words=True, truncation=True, max_length=self.setting.max_tokens
            )
            words = tokens.word_ids()
            first = [word is not None and word != before for word, before in zip(words, [None, *words])]
            labels = tuple(known[row.tags[word]] if new else IGNORED for word, new in zip(words, first))
            encoded.append(Encoded(list(tokens["input_ids"]), first, 0, row.key, labels=labels))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """A label for each word."""
        places = [place for place, label in enumerate(row.labels) if label != IGNORED]
        return Item(
            row.input_ids, len(row.input_ids), places, [row.labels[place] for place in places], [0] * len(places)
        )


@dataclass(frozen=True)
class Texts:
    """Two texts that belong together, as a query and its answer: two documents of one row."""

    families: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The user's last message and the answer to it."""
        tokenizer = self.setting.tokenizer
        cut: Callable[[Any], list[int]] = lambda text: list(
            tokenizer(str(text), truncation=True, max_length=self.setting.max_tokens)["input_ids"]
        )
        sides = [(cut(row.conversation[-2]["content"]), cut(row.conversation[-1]["content"]), row.key) for row in rows]
        return [
            Encoded(one + other, [False] * len(one + other), 0, key, branches=(len(one), len(other))) for one, other, key in sides
        ]  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """No labels: what is learned is which of the step's texts belong together. An empty shared beginning."""
        return Item(row.input_ids, (0, *row.branches), [], [], [], 2, {"pairs": 1.0})
