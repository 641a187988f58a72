"""Layouts that hide a part of a text and learn what was there: masked words, and spans behind sentinels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genwright.base.errors import RecipeError
from genwright.data.collate import Item
from genwright.data.formats import Row
from genwright.data.layouts import IGNORED, Setting, shifted_right
from genwright.data.templates import Encoded


@dataclass(frozen=True)
class MaskedText:
    """Texts for an encoder, some tokens hidden anew each time: of those 80 % by the mask token, 10 % by a random one."""

    families: ClassVar[tuple[str, ...]] = ("encoder",)

    setting: Setting

    def __post_init__(self) -> None:
        if self.setting.tokenizer.mask_token_id is None:
            raise RecipeError(
                "The tokenizer has no mask token, which masked language modelling hides tokens with.",
                wanted="a tokenizer with a mask token, such as BERT's", found=type(self.setting.tokenizer).__name__,
                do="choose an encoder: `genwright models list`",
            )  # fmt: skip
        if self.setting.objective.whole_words and not self.setting.tokenizer.is_fast:
            raise RecipeError("Whole words can be told only by a fast tokenizer.", do="set whole_words = false")

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Pieces of at most `max_tokens`, each between the tokenizer's special tokens; `labels` number the words."""
        tokenizer, room = self.setting.tokenizer, self.setting.max_tokens - sum(map(len, self._around))
        encoded = []
        for row in rows:
            tokens = tokenizer(row.text, add_special_tokens=False, verbose=False)
            words = tokens.word_ids() if tokenizer.is_fast else list(range(len(tokens["input_ids"])))
            for start in range(0, len(tokens["input_ids"]), room):
                encoded.append(
                    self._piece(tokens["input_ids"][start : start + room], words[start : start + room], row.key)
                )
        return encoded

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text."""
        tokens = self.setting.tokenizer("a", return_special_tokens_mask=True)
        ids, special = list(tokens["input_ids"]), list(tokens["special_tokens_mask"])
        first = special.index(0)
        return ids[:first], [token for token, mark in zip(ids[first:], special[first:]) if mark]

    def _piece(self, ids: list[int], words: list[int | None], key: str) -> Encoded:
        before, after = self._around
        word_of = [
            *[IGNORED] * len(before),
            *(IGNORED if word is None else word for word in words),
            *[IGNORED] * len(after),
        ]
        whole = [*before, *ids, *after]
        learned = [word != IGNORED and token not in self._special for token, word in zip(whole, word_of)]
        return Encoded(whole, learned, 0, key, labels=tuple(word_of))

    @cached_property
    def _special(self) -> set[int]:
        """Never hidden, also where a text names them."""
        return set(self.setting.tokenizer.all_special_ids)

    @cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids that a random token is drawn from: all but the special ones."""
        return np.array([token for token in range(len(self.setting.tokenizer)) if token not in self._special])

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """At least one token is hidden, so that every row teaches something."""
        units = self._units(row)
        order = chance.permutation(len(units))
        wanted = max(1, round(self.setting.objective.mask_fraction * sum(map(len, units))))
        chosen: list[int] = []
        for unit in order:
            if len(chosen) >= wanted:
                break
            chosen += units[unit]
        chosen.sort()
        ids, fate = list(row.input_ids), chance.random(len(chosen))
        others = self._ordinary[chance.integers(len(self._ordinary), size=len(chosen))]
        for place, luck, other in zip(chosen, fate, others):
            ids[place] = (
                self.setting.tokenizer.mask_token_id if luck < 0.8 else int(other) if luck < 0.9 else ids[place]
            )
        return Item(ids, len(ids), chosen, [row.input_ids[place] for place in chosen], [0] * len(chosen))

    def _units(self, row: Encoded) -> list[list[int]]:
        """What is chosen together: tokens, or the tokens of a word."""
        places = [place for place, learned in enumerate(row.learned) if learned]
        if not self.setting.objective.whole_words:
            return [[place] for place in places]
        words: dict[int, list[int]] = {}
        for place in places:
            words.setdefault(row.labels[place], []).append(place)
        return list(words.values())


@dataclass(frozen=True)
class Spans:
    """Texts for an encoder-decoder, spans replaced by sentinels anew each time (Raffel 2019)."""

    families: ClassVar[tuple[str, ...]] = ("encoder-decoder",)

    setting: Setting

    def __post_init__(self) -> None:
        if not sentinels(self.setting.tokenizer):
            raise RecipeError(
                "The tokenizer has no sentinel tokens, which span corruption replaces spans with.",
                wanted="tokens <extra_id_0>, <extra_id_1>, ..., such as T5's", do="choose a T5, or another adapt.objective",
            )  # fmt: skip

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Pieces of at most `max_tokens`."""
        tokenizer, room = self.setting.tokenizer, self.setting.max_tokens
        encoded = []
        for row in rows:
            ids = tokenizer(row.text, add_special_tokens=False, verbose=False)["input_ids"]
            cuts = [ids[start : start + room] for start in range(0, len(ids), room)]
            encoded += [Encoded(cut, [True] * len(cut), 0, row.key) for cut in cuts if len(cut) > 1 or len(cuts) == 1]
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Source: the text with its spans replaced; target: each sentinel and what it hides, then EOS."""
        objective, end = self.setting.objective, [self.setting.tokenizer.eos_token_id]
        marks = sentinels(self.setting.tokenizer)
        spans = random_spans(len(row.input_ids), objective.noise_fraction, objective.mean_span, len(marks), chance)
        source, target, after = [], [], 0
        for mark, (start, stop) in zip(marks, spans):
            source += [*row.input_ids[after:start], mark]
            target += [mark, *row.input_ids[start:stop]]
            after = stop
        return shifted_right([*source, *row.input_ids[after:], *end], target + end, self.setting)


def sentinels(tokenizer: Any) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, ... as far as the tokenizer has them."""
    known = tokenizer.get_added_vocab()
    found: list[int] = []
    while f"<extra_id_{len(found)}>" in known:
        found.append(known[f"<extra_id_{len(found)}>"])
    return found


def random_spans(
    length: int, noise: float, mean_span: float, most: int, chance: np.random.Generator
) -> list[tuple[int, int]]:
    """(start, stop) of the hidden spans: noise and clear stretches alternate, cut at random, as in T5's own code.

    568 tokens at 0.15 and 3 hide 85 tokens in 28 spans, so source and target have 512 and 114 tokens.
    """
    hidden = min(max(round(length * noise), 1), length - 1) if length > 1 else length
    clear = length - hidden
    spans = max(1, min(round(hidden / mean_span), most, hidden, max(clear, 1)))
    noisy, plain = _cut(hidden, spans, chance), _cut(clear, spans, chance) if clear else [0] * spans
    found, at = [], 0
    for skip, size in zip(plain, noisy):
        found.append((at + skip, at + skip + size))
        at += skip + size
    return found


def _cut(total: int, parts: int, chance: np.random.Generator) -> list[int]:
    """`total` as `parts` whole numbers of at least 1, every way equally likely."""
    borders = np.sort(chance.choice(total - 1, parts - 1, replace=False) + 1) if parts > 1 else np.array([], dtype=int)
    return [int(size) for size in np.diff(np.concatenate([[0], borders, [total]]))]
